"""The pictures of docs/classical.md: every recipe on a photograph that scikit-image ships.

python -m experiments.records.classical.pictures
"""

import importlib
import pathlib

import cv2
import jax
import numpy as np
from skimage import data

from segjax import classical
from segjax.pictures import layout, region_maps

OUTPUT = pathlib.Path(__file__).parents[3] / "docs" / "classical"
BOX = (8, 62, 388, 492)  # around the cup and its saucer


def main() -> None:
    """Writes docs/classical/<recipe>.jpg, boundaries and mean colours, or what was cut out."""
    image = data.coffee()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in classical.METHODS:
        config = importlib.import_module(f"configs.{name}").get_config()
        method = jax.jit(classical.build(**config.method))
        if classical.takes_box(method):
            mask = np.asarray(method(image, np.array(BOX, np.int32)))
            framed = region_maps.cutout(image, np.ones_like(mask), BOX)
            cells = [framed, region_maps.cutout(image, mask, BOX)]
        else:
            labels = np.asarray(method(image))
            cells = [
                region_maps.boundaries(image, labels),
                region_maps.means(image, labels),
            ]
            print(f"{name}: {labels.max() + 1} regions")
        picture = layout.join(cells, axis=1, gap=4)
        cv2.imwrite(str(OUTPUT / f"{name}.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
