"""The pictures of docs/classical.md: every classical recipe on a photograph of scikit-image.

    python -m experiments.records.classical.pictures

Writes docs/classical/<recipe>.jpg, or into `--output`.
"""

import argparse
import importlib
import pathlib

import jax
import numpy as np
from skimage import data

from experiments.shared import pages
from segjax import classical
from segjax.pictures import layout, region_maps

BOX = (8, 62, 388, 492)  # around the cup and its saucer


def main() -> None:
    """Draws boundaries and mean colours of each method's regions, or the object cut out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=pathlib.Path, default=pages.ROOT / "docs" / "classical")
    given = parser.parse_args()
    image = data.coffee()
    for name in classical.METHODS:
        config = importlib.import_module(f"segjax.configs.{name}").get_config()
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
        pages.write_jpeg(given.output / f"{name}.jpg", picture, quality=88)


if __name__ == "__main__":
    main()
