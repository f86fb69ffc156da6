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
from segjax.photographs.source import LeftOut, Photographs
from segjax.pictures import layout, region_maps
from segjax.runs import progress


def write(
    config: ml_collections.ConfigDict,
    photographs: Photographs,
    output: pathlib.Path,
    values: frozenset[str] = frozenset(),
    *,
    left_out: LeftOut,
    overwrite: bool = False,
) -> None:
    """Writes <name>.png (16-bit label map), <name>_boundaries.png and <name>_mean.png.

    A photograph that the method refuses does not stop the others.

    Args:
        config: `method` and `predict.box` are read.
        photographs: are segmented.
        output: folder.
        values: those of `saves.OF_METHODS` that are written; all by default.
        left_out: gets the photographs that the method refuses: one smaller than its regions, say,
            or without the box.
        overwrite: whether files of these names may be replaced.

    Raises:
        InputError: on an unknown method or option, or if a file is there already.
    """
    values = values or frozenset(saves.OF_METHODS)
    method = classical.build(**config.method)
    boxed = classical.takes_box(method)
    program = jax.jit(method)
    saves.check_free(photographs, output, values, photographs.paths, overwrite=overwrite)
    line = progress.ProgressLine("image", len(photographs))
    written = 0
    for done, (name, image) in enumerate(photographs.named(), 1):
        text = ""
        with left_out.guard(name):
            box = [_checked_box(config.predict.box, image.shape[:2], name)] if boxed else []
            labels = np.asarray(program(image, *box))
            _write_image(image, labels, output / name, values)
            text = f"{name}: {labels.max() + 1} regions"
            written += 1
        line.show(done, text)
    line.close()
    if written:
        print(f"Written: {saves.told(values, written)} in {output}.")


def _write_image(
    image: np.ndarray, labels: np.ndarray, start: pathlib.Path, values: frozenset[str]
) -> None:
    """Writes the files of one image; `start` is their path up to what distinguishes them."""

    def path(value: str) -> pathlib.Path:
        return start.with_name(f"{start.name}{saves.ENDINGS[value][0]}")

    if saves.LABELS in values:
        files.write(path(saves.LABELS), png.encode_regions(labels, str(path(saves.LABELS))))
    if saves.BOUNDARIES in values:
        layout.write_png(path(saves.BOUNDARIES), region_maps.boundaries(image, labels))
    if saves.MEAN in values:
        layout.write_png(path(saves.MEAN), region_maps.means(image, labels))


def _checked_box(box: Sequence[int], size: tuple[int, int], name: str) -> np.ndarray:
    top, left, bottom, right = box
    if not (0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]):
        raise InputError(
            f"config.predict.box is {tuple(box)}; top,left,bottom,right within the "
            f"{size[0]} x {size[1]} pixels of {name} are needed: --config.predict.box=10,20,200,300"
        )
    return np.array(box, np.int32)
