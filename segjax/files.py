"""The one writer of files: a file is there whole or not at all, whatever goes wrong meanwhile.

Every function makes the folders above the file and raises an `InputError` that names the path where
the disk refuses. A file is written beside its place under a hidden name and moved there when it is
complete. Only logs, which grow by lines, and checkpoints, which orbax writes, go another way.
"""

import contextlib
import json
import os
import pathlib
import secrets
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Self

import numpy as np

from segjax.errors import InputError


def cache_folder() -> pathlib.Path:
    """The folder of what is remembered between runs: `$SEGJAX_CACHE`, else ~/.cache/segjax."""
    return pathlib.Path(os.environ.get("SEGJAX_CACHE") or pathlib.Path.home() / ".cache" / "segjax")


def write(path: str | os.PathLike, data: bytes) -> None:
    """Writes bytes.

    Raises:
        InputError: naming `path`, if the disk refuses.
    """
    with _opened(path) as stream:
        stream.write(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes text as UTF-8; raises as `write`."""
    write(path, text.encode())


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Writes JSON for people and programs: indented, ASCII, a newline at its end.

    Raises:
        InputError: as `write`.
        ValueError: on nan or an infinity, which JSON does not have.
    """
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_npz(path: str | os.PathLike, /, **arrays: Any) -> None:
    """Writes named arrays, compressed; raises as `write`."""
    with _opened(path) as stream:
        np.savez_compressed(stream, **arrays)


def check_free(
    outputs: Mapping[str, Sequence[pathlib.Path]],
    *,
    inputs: Iterable[pathlib.Path] = (),
    overwrite: bool = False,
) -> None:
    """Checks the files that a verb is going to write, before it writes any.

    Args:
        outputs: result, as messages name it -> its files.
        inputs: files that are read, and never written over, whatever path leads to them.
        overwrite: whether other files of these names may be replaced.

    Raises:
        InputError: naming a file that two results would have, that is read, or that is there.
    """
    owner: dict[pathlib.Path, str] = {}
    for result, paths in outputs.items():
        for path in paths:
            if path in owner:
                raise InputError(
                    f"{path} would be written twice, for {owner[path]} and for {result}; rename "
                    "one of them, or write them into different folders."
                )
            owner[path] = result
    there = {path: _identity(path) for path in owner if os.path.lexists(path)}
    if not there:
        return
    read = {_identity(path) for path in inputs}
    for path, identity in there.items():
        if identity is not None and identity in read:
            raise InputError(f"{path} is read by this command, which would write over it.")
    if not overwrite:
        first, more = next(iter(there)), len(there) - 1
        raise InputError(
            f"{first}{f' and {more} more' if more else ''}: there already; give another --output, "
            "or --overwrite."
        )


def _identity(path: pathlib.Path) -> tuple[int, int] | None:
    """The same for all paths of a file; None for a broken link."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A new file, open for writing; it is in its place after the block."""
    partial = _Partial(path)
    with partial.dropped_on_error():
        yield partial.stream
    partial.close()


class _Partial:
    """A file beside its place: `close` puts it there, `drop` removes it."""

    def __init__(self, path: str | os.PathLike):
        self._path = pathlib.Path(path)
        # Random: processes of several machines may write into one folder.
        self._partial = self._path.with_name(f".{secrets.token_hex(8)}.tmp")
        with self.dropped_on_error():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.stream: BinaryIO = self._partial.open("wb")

    def close(self) -> None:
        """Puts the file in its place."""
        with self.dropped_on_error():
            self.stream.close()
            os.replace(self._partial, self._path)

    def drop(self) -> None:
        """Removes what was written so far; does nothing after `close`."""
        with contextlib.suppress(OSError, AttributeError):
            self.stream.close()
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def dropped_on_error(self) -> Iterator[None]:
        """After an error inside nothing is left; a refusal of the disk names the file."""
        try:
            yield
        except OSError as error:
            self.drop()
            text = error.strerror or error
            raise InputError(f"{self._path}: cannot be written: {text}.") from error
        except BaseException:
            self.drop()
            raise


class ZipWriter(_Partial):
    """A zip archive of files, each stored as it is; it appears under its name once it is closed.

    As a context manager it is closed at the end of the block, and leaves nothing after an error.

    Args:
        path: of the archive.

    Raises:
        InputError: naming `path`, if the disk refuses, here or in a method.
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__(path)
        self._zip = zipfile.ZipFile(self.stream, "w")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.drop()

    def comment(self, text: str) -> None:
        """Sets the comment of the archive."""
        self._zip.comment = text.encode()

    def add(self, name: str, data: bytes) -> None:
        """Adds a file of this name; undated, so that the same content makes the same archive."""
        with self.dropped_on_error():
            self._zip.writestr(zipfile.ZipInfo(name), data)

    def close(self) -> None:
        """Completes the archive and puts it in its place."""
        with self.dropped_on_error():
            self._zip.close()
        super().close()

    def drop(self) -> None:
        """Removes what was written so far; does nothing after `close`."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._zip.close()  # else it would try again when it is collected
        super().drop()
