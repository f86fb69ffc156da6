"""The label maps that an evaluation keeps: a zip of PNGs beside its file of scores."""

import pathlib
import zipfile
from typing import Any

import jax
import numpy as np

from segjax import files
from segjax.data import png
from segjax.data.spec import DatasetSpec
from segjax.errors import InputError


class Writer:
    """Writes label maps as PNGs with palettes into a zip, `<name>.png` each; a context manager.

    Every process has a zip of its own. Zips of an evaluation before are removed.

    Args:
        path: of the file of scores.
        spec: of the data set.

    Raises:
        InputError: if the disk refuses, then or later.
    """

    def __init__(self, path: pathlib.Path, spec: DatasetSpec):
        part = f"-{jax.process_index()}" if jax.process_count() > 1 else ""
        if jax.process_index() == 0:
            for old in files_of(path):
                old.unlink(missing_ok=True)
        self._palette = [*spec.palette]
        # PNGs are compressed already.
        self._zip = files.ZipWriter(path.with_name(f"{path.stem}-labels{part}.zip"))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: Any) -> None:
        self._zip.__exit__(*error)

    def add(self, name: str, prediction: np.ndarray) -> None:
        """Adds the map uint8 [H, W] of an image."""
        self._zip.add(f"{name}.png", png.encode_indices(prediction, self._palette))


class Reader:
    """The label maps beside a file of scores, by the names of their images.

    Args:
        path: of the file of scores.

    Raises:
        InputError: if there are no label maps, or they cannot be read.
    """

    def __init__(self, path: pathlib.Path):
        parts = files_of(path)
        if not parts:
            raise InputError(
                f"{path} has no label maps beside it ({path.stem}-labels.zip): run "
                "segjax.evaluate once more."
            )
        self._path = path
        self._where: dict[str, zipfile.ZipFile] = {}
        for part in parts:
            try:
                opened = zipfile.ZipFile(part)
            except (OSError, zipfile.BadZipFile) as error:
                raise InputError(f"{part} cannot be read: {error}.") from error
            self._where |= dict.fromkeys(opened.namelist(), opened)

    def __getitem__(self, name: str) -> np.ndarray:
        """uint8 [H, W], of the image of this name."""
        file = f"{name}.png"
        if file not in self._where:
            raise InputError(f"{self._path}: there is no label map of {name}.")
        return png.decode_mask(self._where[file].read(file), f"{self._path}: {file}")


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """The zips beside a file of scores, one of each process."""
    return sorted(path.parent.glob(f"{path.stem}-labels*.zip"))
