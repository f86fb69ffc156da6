"""What a run was trained on, file by file: the record in its folder, and what has changed since.

`data.npz` holds names and checksums, about 20 bytes an example: 2 MB for 100,000 images. Folders of
older runs have none; of their data only the fingerprint is known.
"""

import dataclasses
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from segjax import files
from segjax.data.scan import Scan
from segjax.data.spec import DatasetSpec
from segjax.errors import InputError

_NAME = "data.npz"
_SHOWN = 3  # names in one part of a message


@dataclasses.dataclass(frozen=True)
class _Record:
    """The examples of a split.

    Attributes:
        count: their number; of a generated source only the first are looked at.
        names: names of those that were looked at.
        sums: uint64 [n, 2], a checksum and the length of each image and of each mask.
    """

    count: int
    names: list[str]
    sums: np.ndarray

    @classmethod
    def of(cls, scan: Scan) -> "_Record":
        """The record of a scanned split."""
        contents = scan.contents
        sums = [[_joined(image), _joined(mask)] for _, image, mask in contents]
        names = [name for name, _, _ in contents]
        return cls(len(scan.sizes), names, np.array(sums, np.uint64).reshape(-1, 2))


def _joined(numbers: Sequence[int]) -> int:
    return sum((number % 2**32) << (32 * place) for place, number in enumerate(numbers))


def write(workdir: pathlib.Path, scans: Mapping[str, Scan]) -> None:
    """Writes the record of a run's splits, unless it is there.

    Args:
        workdir: the run folder.
        scans: key, "train" or "eval" -> the split's scan.

    Raises:
        InputError: if the disk refuses.
    """
    if jax.process_index() != 0:
        return
    if all(_read(workdir, scan.fingerprint) is not None for scan in scans.values()):
        return
    arrays: dict[str, np.ndarray] = {}
    for key, scan in scans.items():
        record = _Record.of(scan)
        # Checkpoints of older runs know their data by the second.
        marks = [scan.fingerprint, scan.old_fingerprint(scan.spec.name)]
        arrays[f"{key}.fingerprints"] = np.array(marks)
        arrays[f"{key}.count"] = np.array(record.count)
        arrays[f"{key}.names"] = np.frombuffer("\n".join(record.names).encode(), np.uint8)
        arrays[f"{key}.sums"] = record.sums
    files.write_npz(workdir / _NAME, **arrays)


def refusal(
    workdir: pathlib.Path, before: Mapping[str, Any], key: str, name: str, scan: Scan
) -> InputError | None:
    """The error for data other than those that a run was trained on; None if they are the same.

    Args:
        workdir: the run folder.
        before: metadata of a checkpoint of the run.
        key: "train" or "eval".
        name: name of the split.
        scan: its scan now.
    """
    spec, stored = DatasetSpec.from_json(before["spec"]), before["data"][key]
    # Runs of before had the name of the data set's folder in their fingerprint.
    if stored in (scan.fingerprint, scan.old_fingerprint(spec.name)):
        return None
    told = _spec_changes(spec, scan.spec)
    record = _read(workdir, stored)
    if record is not None:
        told += _file_changes(record, _Record.of(scan), ("then", "now"))
    words = "; ".join(told) or f"{stored} there, {scan.fingerprint} now"
    return InputError(
        f"{workdir}: the run was trained on other data: {words} (split {name!r}). Give another "
        "--workdir."
    )


def difference(first: tuple[pathlib.Path, str], second: tuple[pathlib.Path, str]) -> str:
    """What differs between the data of two runs, for a message; "" where that is not known.

    Args:
        first, second: run folder, and the fingerprint of the split.
    """
    a, b = (_read(*one) for one in (first, second))
    return "" if a is None or b is None else "; ".join(_file_changes(a, b, ("in A", "in B")))


def _read(workdir: pathlib.Path, fingerprint: str) -> _Record | None:
    """The recorded split of a fingerprint; None if there is no record of it that can be read."""
    try:
        with np.load(workdir / _NAME, allow_pickle=False) as arrays:
            for key in ("train", "eval"):
                if fingerprint in arrays[f"{key}.fingerprints"].tolist():
                    names = arrays[f"{key}.names"].tobytes().decode().split("\n")
                    record = _Record(int(arrays[f"{key}.count"]), names, arrays[f"{key}.sums"])
                    return record if len(names) == len(record.sums) else None
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile):
        pass
    return None


def _spec_changes(before: DatasetSpec, now: DatasetSpec) -> list[str]:
    if before.classes != now.classes:
        gone = [name for name in before.classes if name not in now.classes]
        new = [name for name in now.classes if name not in before.classes]
        if not gone and not new:
            return [f"the classes are in another order ({', '.join(now.classes)})"]
        return [
            f"{len(before.classes)} classes then and {len(now.classes)} now"
            + _listed(gone, " gone", " (", ")")
            + _listed(new, " new", " (", ")")
        ]
    if before.table != now.table:
        return ["other ids stand for the classes"]
    if before.palette != now.palette or before.colors != now.colors:
        return ["the classes have other colours"]
    return [] if before.channel == now.channel else ["masks are read from another channel"]


def _file_changes(before: _Record, now: _Record, when: tuple[str, str]) -> list[str]:
    then = dict(zip(before.names, before.sums, strict=True))
    here = dict(zip(now.names, now.sums, strict=True))
    differs = {name: then[name] != here[name] for name in now.names if name in then}
    told = [
        _listed([name for name in now.names if name not in then], " added"),
        _listed([name for name in before.names if name not in here], " gone"),
        _listed([name for name, (image, _) in differs.items() if image], " with another image"),
        _listed([name for name, (_, mask) in differs.items() if mask], " with another mask"),
    ]
    told = [text for text in told if text]
    if told or before.count != now.count:
        return [f"{before.count} examples {when[0]} and {now.count} {when[1]}", *told]
    return ["the examples are in another order"] if before.names != now.names else []


def _listed(names: Sequence[str], what: str, start: str = "", end: str = "") -> str:
    """Text such as "4 added: a, b, c, ..."; "" for no names."""
    if not names:
        return ""
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{start}{len(names)}{what}: {', '.join(names[:_SHOWN])}{more}{end}"
