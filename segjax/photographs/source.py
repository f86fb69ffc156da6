"""Image files as a source: one file, or those of a folder."""

import concurrent.futures
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from segjax.data import sources
from segjax.data.spec import VOID
from segjax.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""File suffixes of images in a folder."""


class Photographs:
    """Image files as a source without truth: every label is VOID.

    Args:
        paths: the files.
    """

    def __init__(self, paths: Sequence[pathlib.Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = sources.read_image(self.paths[index], upright=True)
        return image, np.full(image.shape[:2], VOID, np.uint8)

    def name(self, index: int) -> str:
        """The name of a file without its suffix."""
        return self.paths[index].stem

    def sizes(self) -> np.ndarray:
        """int32 [N, 2]; reads every image.

        Raises:
            InputError: naming a file that is damaged or no image.
        """
        with concurrent.futures.ThreadPoolExecutor() as pool:
            shapes = list(pool.map(lambda index: self[index][1].shape, range(len(self))))
        return np.array(shapes, np.int32)

    def named(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (name, image uint8 [H, W, 3]) of every file."""
        for index in range(len(self)):
            yield self.name(index), self[index][0]


def find(path: pathlib.Path) -> Photographs:
    """The photograph at a path, or those of a folder, sorted.

    Raises:
        InputError: if there are none, or if two of them have one name.
    """
    if path.is_file():
        return Photographs([path])
    if not path.is_dir():
        raise InputError(f"--input: there is no file or folder {str(path)!r}.")
    paths = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"--input: {path} holds no image ({', '.join(SUFFIXES)}).")
    names = [p.stem for p in paths]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise InputError(f"--input: {path} holds several images named {double[0]!r}.")
    return Photographs(paths)
