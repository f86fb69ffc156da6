"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib

from segjax.errors import InputError


def write_file(path: str | os.PathLike, data: bytes) -> None:
    """Writes a whole file or, whatever goes wrong, none of it; makes the folders above it.

    Raises:
        InputError: naming `path`, if the disk refuses.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror or error}.") from error
