"""The compiled programs that JAX keeps between starts, so that none is compiled twice."""

import hashlib
import json
import pathlib
import platform
import zlib

import jax
from absl import logging

from segjax import files
from segjax.errors import InputError

_INDEX = "segjax-index.json"
_ENTRIES = "*-cache"


def keep() -> None:
    """Has JAX keep the programs of this process, in `folder()`, and use those that are there.

    JAX's own settings go first: JAX_COMPILATION_CACHE_DIR names another folder, and
    JAX_ENABLE_COMPILATION_CACHE=false keeps none. What a process that was killed has left
    unfinished is removed: JAX would neither use it nor write it again.
    """
    settings = jax.config.values
    if not settings["jax_enable_compilation_cache"]:
        return
    place = settings["jax_compilation_cache_dir"]
    if place is None:
        place = str(folder())
        jax.config.update("jax_compilation_cache_dir", place)
    if "://" not in place:
        _remove_unfinished(pathlib.Path(place))


def folder() -> pathlib.Path:
    """Where programs are kept: in `files.cache_folder()`, by the processor of this machine.

    Programs for a CPU use the instructions of the one that compiled them.
    """
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        known = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        known = platform.processor()
    kind = hashlib.sha256(f"{platform.machine()} {known}".encode()).hexdigest()[:8]
    return files.cache_folder() / "programs" / kind


def _remove_unfinished(place: pathlib.Path) -> None:
    """Removes the entries that cannot be read; looks once at each."""
    try:
        sizes = {path.name: path.stat().st_size for path in place.glob(_ENTRIES)}
        known = _known(place)
        fresh = {name: size for name, size in sizes.items() if known.get(name) != size}
        broken = {name for name in fresh if not _whole((place / name).read_bytes())}
        for name in broken:
            (place / name).unlink(missing_ok=True)
            logging.warning("%s was left unfinished and is made again.", place / name)
        if fresh:
            good = {name: size for name, size in sizes.items() if name not in broken}
            files.write_text(place / _INDEX, json.dumps(good))
    except (OSError, InputError) as error:  # then JAX itself says what it cannot read or write
        logging.warning("Kept programs are not checked: %s", error)


def _known(place: pathlib.Path) -> dict[str, int]:
    try:
        found = json.loads((place / _INDEX).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole(entry: bytes) -> bool:
    """Whether an entry is complete; true of a kind of compression that is not known here."""
    if entry[:1] != b"\x78":  # zlib's first byte; JAX takes zstandard where it is installed
        return bool(entry)
    unpacked = zlib.decompressobj()
    try:
        unpacked.decompress(entry)
    except zlib.error:
        return False
    return unpacked.eof
