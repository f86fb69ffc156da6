"""Photographs through a classical method: label maps, boundaries and mean colours as files."""

import pathlib
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from segjax import classical, files
from segjax.data import png
from segjax.errors import InputError
from segjax.photographs import saves
from segjax.photographs.source import Photographs
from segjax.pictures import layout, region_maps
from segjax.runs import progress


def write(
    config: ml_collections.ConfigDict,
    photographs: Photographs,
    output: pathlib.Path,
    values: frozenset[str] = frozenset(),
) -> None:
    """Writes <name>.png (16-bit label map), <name>_boundaries.png and <name>_mean.png.

    Args:
        config: `method` and `predict.box` are read.
        photographs: are segmented.
        output: folder.
        values: those of `saves.OF_METHODS` that are written; all by default.

    Raises:
        InputError: on bad options, or a box that is missing or outside an image.
    """
    values = values or frozenset(saves.OF_METHODS)
    method = classical.build(**config.method)
    boxed = classical.takes_box(method)
    program = jax.jit(method)
    line = progress.ProgressLine("image", len(photographs))
    for done, (name, image) in enumerate(photographs.named(), 1):
        box = [_checked_box(config.predict.box, image.shape[:2], name)] if boxed else []
        labels = np.asarray(program(image, *box))
        if saves.LABELS in values:
            path = output / f"{name}.png"
            files.write(path, png.encode_regions(labels, str(path)))
        if saves.BOUNDARIES in values:
            picture = region_maps.boundaries(image, labels)
            layout.write_png(output / f"{name}_boundaries.png", picture)
        if saves.MEAN in values:
            layout.write_png(output / f"{name}_mean.png", region_maps.means(image, labels))
        line.show(done, f"{name}: {labels.max() + 1} regions")
    line.close()
    print(f"Written: {saves.told(values, len(photographs))} in {output}.")


def _checked_box(box: Sequence[int], size: tuple[int, int], name: str) -> np.ndarray:
    top, left, bottom, right = box
    if not (0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]):
        raise InputError(
            f"config.predict.box is {tuple(box)}; top,left,bottom,right within the "
            f"{size[0]} x {size[1]} pixels of {name} are needed: --config.predict.box=10,20,200,300"
        )
    return np.array(box, np.int32)
