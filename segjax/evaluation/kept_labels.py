"""Label maps of an evaluation: a zip of PNGs beside the file of scores."""

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
    """Context manager that writes label maps into a zip, as palette PNGs `<name>.png`.

    Each process writes one zip. Those of an earlier evaluation stay until these are whole.

    Args:
        path: JSON file of scores.
        spec: data set spec.

    Raises:
        InputError: if writing fails, here or in a method.
    """

    def __init__(self, path: pathlib.Path, spec: DatasetSpec):
        self._path, self._palette = path, [*spec.palette]
        count = jax.process_count()
        parts = [f"-{process}" for process in range(count)] if count > 1 else [""]
        self._names = [f"{path.stem}-labels{part}.zip" for part in parts]
        # PNGs are compressed already.
        self._zip = files.ZipWriter(path.with_name(self._names[jax.process_index()]))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        self._zip.__exit__(kind, *error)
        if kind is None and jax.process_index() == 0:
            for old in files_of(self._path):  # of another number of processes
                if old.name not in self._names:
                    old.unlink(missing_ok=True)

    def sign(self, mark: str) -> None:
        """Says to which result the label maps belong, see `result.mark`."""
        self._zip.comment(mark)

    def add(self, name: str, prediction: np.ndarray) -> None:
        """Adds the label map of an image, uint8 [H, W]."""
        self._zip.add(f"{name}.png", png.encode_indices(prediction, self._palette))


class Reader:
    """Reader of the label maps beside a file of scores.

    Args:
        path: JSON file of scores.
        mark: mark of the result, see `result.mark`; "" for files that were written without.

    Raises:
        InputError: if there are no label maps, they cannot be read, or they are of another result.
    """

    def __init__(self, path: pathlib.Path, mark: str):
        parts = files_of(path)
        if not parts:
            raise InputError(
                f"{path} has no label maps beside it ({path.stem}-labels.zip); run "
                "segjax.evaluate again."
            )
        self._path = path
        self._where: dict[str, zipfile.ZipFile] = {}
        for part in parts:
            try:
                opened = zipfile.ZipFile(part)
            except (OSError, zipfile.BadZipFile) as error:
                raise InputError(f"{part} cannot be read: {error}.") from error
            if opened.comment.decode(errors="replace") != mark:
                raise InputError(
                    f"{part} holds label maps of another evaluation than {path.name}; run "
                    "segjax.evaluate again."
                )
            self._where |= dict.fromkeys(opened.namelist(), opened)

    def __getitem__(self, name: str) -> np.ndarray:
        """The label map of the named image, uint8 [H, W]."""
        file = f"{name}.png"
        if file not in self._where:
            raise InputError(f"{self._path} has no label map of {name}.")
        return png.decode_mask(self._where[file].read(file), f"{self._path}: {file}")


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """Zips beside a file of scores, one per process."""
    return sorted(path.parent.glob(f"{path.stem}-labels*.zip"))
