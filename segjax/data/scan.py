"""The check of a data set before step 0: reads every example once and counts its labels.

Unreadable files and undeclared ids stop the run here, listed all at once, and not after an hour.
The class weights of the loss (`class_weights.py`) and a run's data fingerprint come from the scan.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import TypeVar

import numpy as np
from absl import logging

from segjax import files
from segjax.data import exif, png, sources
from segjax.data.spec import VOID, DatasetSpec, ids_of_channel
from segjax.errors import InputError

SAMPLED = 200
"""Number of examples read from a generated source, which has no files to be damaged."""

_CACHE_VERSION = 3  # changes with the meaning of a cached field
_LOG_SECONDS = 5.0

Parsed = TypeVar("Parsed")


class ScanError(InputError):
    """A source has bad examples; `problems` holds one line for each problem."""

    def __init__(self, message: str, problems: Sequence[str] = ()):
        super().__init__(message)
        self.problems = list(problems)


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """Counts and digests of the examples in a source. N examples, K classes.

    Attributes:
        sizes: int32 [N, 2], height and width.
        pixels: int64 [K], pixels of each class.
        void: pixels without truth.
        images: int64 [K], examples in which the class occurs.
        image_pixels: int64 [K], the pixels with truth of those examples.
        raw: raw id -> pixels, of the ids that occur.
        spec: the meaning of the labels.
        digests: one digest for each example read: its name, lengths and checksums.
    """

    sizes: np.ndarray
    pixels: np.ndarray
    void: int
    images: np.ndarray
    image_pixels: np.ndarray
    raw: dict[int, int]
    spec: DatasetSpec
    digests: tuple[str, ...]

    @functools.cached_property
    def contents(self) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """Name, image and mask of each example read: length and CRC-32 of a file, or an array's."""
        read = []
        for digest in self.digests:
            name, *parts = json.loads(digest)
            numbers = [part for part in parts if isinstance(part, int)]  # orientations are text
            half = len(numbers) // 2
            read.append((str(name), tuple(numbers[:half]), tuple(numbers[half:])))
        return read

    @property
    def sampled(self) -> int:
        """Number of examples read, to which the counts refer; fewer than N if generated."""
        return len(self.digests)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the spec without its name, of N and of the examples in order.

        The same data have the same fingerprint on every machine, whatever the name, place or dates
        of their folder. A changed mask, image, file name or class changes it.
        """
        return self._fingerprint(_nameless(self.spec))

    def old_fingerprint(self, name: str) -> str:
        """The fingerprint by the rule of the first run folders, which includes the spec's name.

        Args:
            name: the spec's name at that time; for `folder` and `lecture` the data set's folder.
        """
        return self._fingerprint(dataclasses.replace(self.spec, name=name).to_json())

    def _fingerprint(self, spec: dict) -> str:
        digest = hashlib.sha256(json.dumps([spec, len(self.sizes)]).encode())
        for part in self.digests:
            digest.update(part.encode())
        return digest.hexdigest()


@dataclasses.dataclass
class _Finding:
    """One examined example: size, pixels by raw id, digest of the content, problems."""

    size: tuple[int, int] = (0, 0)
    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    digest: str = ""
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # (kind, message)


def scan(
    source: sources.Source,
    spec: DatasetSpec,
    *,
    name: str,
    cache: Path | None = None,
    fresh: bool = False,
    log: Callable[[str], None] = logging.info,
) -> Scan:
    """The counts and digests of a source, or an error that lists all its problems.

    Each processor decodes files in one thread. A source without files but with a constant `size`
    (the embedded scenes) is sampled: only its first SAMPLED examples are read.

    Args:
        source: a `sources.FolderSource`, a cached one, or any other source.
        spec: the meaning of its labels.
        name: data set and split, for messages.
        cache: folder of remembered scans, valid while the files (paths below the split, sizes,
            dates) and the spec but for its name are unchanged; by default `$SEGJAX_CACHE`, else
            `~/.cache/segjax`. It may be missing or read-only.
        fresh: reads all files even if the cache has a valid scan.
        log: receives a line every few seconds of a long scan.

    Raises:
        InputError: if the source has no example.
        ScanError: if examples have problems; the message counts them by kind and cites the first.
    """
    while isinstance(source, sources.CachedSource):
        source = source.source
    folder = source if isinstance(source, sources.FolderSource) else None
    memory = None
    if folder is not None:
        memory = _Cache(cache, "scan", [_nameless(spec), *_stamps(folder)])
    if memory and not fresh and (known := memory.read(lambda fields: _from_json(fields, spec))):
        log(f"{name}: {len(source)} examples, unchanged since their last scan.")
        return known
    generated = folder is None and hasattr(source, "size")
    count = min(SAMPLED, len(source)) if generated else len(source)
    if not count:
        raise InputError(f"{name}: contains no example.")

    def examine(index: int) -> _Finding:
        if folder is None:
            return _examine_arrays(source, index, spec)
        return _examine_files(folder, index, spec)

    result = _sum(_parallel(examine, count, name, log), source, spec, name)
    if memory:
        memory.write(_to_json(result))
    return result


def find_ids(
    labels: Sequence[Path],
    *,
    channel: str = "",
    cache: Path | None = None,
    log: Callable[[str], None] = logging.info,
) -> dict[int, int]:
    """Pixels by raw id over mask files; results are cached as in `scan`.

    Files that are not index masks are skipped here; `scan` lists them.

    Args:
        labels: the files.
        channel: channel of RGB masks with the ids, see `spec.ids_of_channel`; "" skips RGB masks.
        cache, log: see `scan`.

    Raises:
        InputError: the first file's problem, if no file is an index mask.
    """
    memory = _Cache(cache, "ids", [channel, *(_stamp(label) for label in labels)])
    if known := memory.read(lambda fields: {int(i): int(n) for i, n in fields.items()}):
        return known

    def count(i: int) -> np.ndarray | InputError:
        try:
            mask = png.decode_mask(sources.read_bytes(labels[i]), str(labels[i]))
            if mask.ndim == 3 and channel:
                mask = ids_of_channel(mask, channel, str(labels[i]))
        except InputError as error:
            return error
        if mask.ndim == 2:
            return np.bincount(mask.ravel(), minlength=256)
        return png.BadFileError(
            f"{labels[i]}: an RGB mask; list every class with its colour in classes.txt, "
            "one `name R G B` per line, or store index PNGs."
        )

    results = list(_parallel(count, len(labels), "label ids", log))
    counts = [result for result in results if not isinstance(result, InputError)]
    if not counts:
        raise results[0]
    ids = _nonzero(sum(counts))
    memory.write({str(i): n for i, n in ids.items()})
    return ids


def _examine_files(source: sources.FolderSource, index: int, spec: DatasetSpec) -> _Finding:
    """Examines a pair of files; a problem with one file does not hide those of the other."""
    image_path, label_path = source.pairs[index]
    finding = _Finding()
    arrays: list[np.ndarray | None] = []
    digests: list[str | int] = [source.name(index)]
    for path, decode in (
        (image_path, sources.decode_image),
        (label_path, lambda data, where: sources.decode_ids(data, where, spec)),
    ):
        try:
            data = sources.read_bytes(path)
            digests += [len(data), zlib.crc32(data)]
            if (turned := exif.orientation(data)) != 1:
                digests.append(f"upright from {turned}")  # it was once read as stored
            arrays.append(decode(data, str(path)))
        except InputError as error:
            arrays.append(None)
            finding.problems.append((getattr(error, "kind", "RGB mask"), str(error)))
    image, raw = arrays
    finding.digest = json.dumps(digests)
    if raw is None:
        return finding
    try:
        spec.encode(raw, str(label_path))
    except InputError as error:
        finding.problems.append(("undeclared ids", str(error)))
    if image is not None:
        try:
            sources.check_sizes(image, raw, image_path, label_path)
        except png.BadFileError as error:
            finding.problems.append((error.kind, str(error)))
    finding.size = raw.shape
    finding.counts = np.bincount(raw.ravel(), minlength=256)
    return finding


def _examine_arrays(source: sources.Source, index: int, spec: DatasetSpec) -> _Finding:
    """Examines an example of a source without files, whose labels are classes."""
    image, label = source[index]
    where = source.name(index)
    if image.shape[:2] != label.shape:
        return _Finding(problems=[("size mismatch", f"{where}: {image.shape}, {label.shape}.")])
    wrong = (label >= spec.num_classes) & (label != VOID)
    if wrong.any():
        message = (
            f"{where}: class {label[wrong].max()}, but 0 to {spec.num_classes - 1} are allowed."
        )
        return _Finding(problems=[("undeclared ids", message)])
    counts = np.bincount(spec.decode(label).ravel(), minlength=256)
    digest = json.dumps([where, zlib.crc32(image.tobytes()), zlib.crc32(label.tobytes())])
    return _Finding(label.shape, counts, digest)


def _sum(
    findings: Iterator[_Finding], source: sources.Source, spec: DatasetSpec, name: str
) -> Scan:
    """The sum of the findings; ScanError with all their problems if there are any."""
    size = spec.num_classes
    raw, pixels, images, image_pixels = (np.zeros(n, np.int64) for n in (256, size, size, size))
    sizes, digests, problems, bad = [], [], [], 0
    for finding in findings:
        problems += finding.problems
        bad += bool(finding.problems)
        if finding.problems:
            continue
        digests.append(finding.digest)
        sizes.append(finding.size)
        raw += finding.counts
        classes = np.zeros(256, np.int64)
        np.add.at(classes, spec.lookup, finding.counts)
        pixels += classes[:size]
        images += classes[:size] > 0
        image_pixels += (classes[:size] > 0) * classes[:size].sum()
    if problems:
        kinds = collections.Counter(kind for kind, _ in problems).most_common()
        raise ScanError(
            f"{name}: {len(problems)} problems in {bad} of {len(source)} examples "
            f"({', '.join(f'{kind} {n}' for kind, n in kinds)}); first: {problems[0][1]}",
            [message for _, message in problems],
        )
    if len(sizes) < len(source) and hasattr(source, "size"):
        sizes = [source.size] * len(source)
    return Scan(
        sizes=np.array(sizes, np.int32),
        pixels=pixels,
        void=int(raw.sum() - pixels.sum()),
        images=images,
        image_pixels=image_pixels,
        raw=_nonzero(raw),
        spec=spec,
        digests=tuple(digests),
    )


def _parallel(function: Callable, count: int, name: str, log: Callable[[str], None]) -> Iterator:
    """function(0), ..., function(count - 1) in order, computed by one thread per processor."""
    start = logged = time.monotonic()
    pool = futures.ThreadPoolExecutor(os.cpu_count())
    try:
        for i, result in enumerate(pool.map(function, range(count)), start=1):
            now = time.monotonic()
            if now - logged > _LOG_SECONDS:
                logged, left = now, (now - start) * (count - i) / i
                log(f"scanning {name}: {i} of {count} examples, {left:.0f} s left.")
            yield result
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C the rest is not needed


def _nonzero(counts: np.ndarray) -> dict[int, int]:
    return {int(i): int(counts[i]) for i in np.flatnonzero(counts)}


class _Cache:
    """One JSON file that stores the result for a key; failures to read or write are no errors."""

    def __init__(self, folder: Path | None, kind: str, key: Sequence):
        place = folder or files.cache_folder()
        text = json.dumps([_CACHE_VERSION, *key])
        self.path = place / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def read(self, parse: Callable[[dict], Parsed]) -> Parsed | None:
        """The parsed content; None if it is missing or damaged."""
        try:
            return parse(json.loads(self.path.read_text()))
        except (OSError, ValueError, TypeError, AttributeError, LookupError):
            return None

    def write(self, fields: dict) -> None:
        """Stores the fields; a failure is logged as a warning."""
        try:
            files.write_text(self.path, json.dumps(fields))
        except InputError as error:
            logging.warning("The scan cannot be cached: %s", error)


def _stamps(source: sources.FolderSource) -> Iterator[list]:
    for i, (image, label) in enumerate(source.pairs):
        yield [source.name(i), *_stamp(image)[1:], *_stamp(label)[1:]]


def _stamp(path: Path) -> list:
    """Path, size and modification time; -1 for a missing file, which fails when it is read."""
    try:
        status = path.stat()
    except OSError:
        return [str(path), -1, -1]
    return [str(path), status.st_size, status.st_mtime_ns]


def _nameless(spec: DatasetSpec) -> dict:
    """The spec as JSON without its name, which may be that of the data set's folder."""
    fields = spec.to_json()
    del fields["name"]
    return fields


def _to_json(result: Scan) -> dict:
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(Scan)}
    del fields["spec"]  # part of the cache's key
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in fields.items()}


def _from_json(fields: dict, spec: DatasetSpec) -> Scan:
    fields = dict(fields)
    fields["raw"] = {int(i): n for i, n in fields["raw"].items()}
    fields["digests"] = tuple(fields["digests"])
    for key in ("sizes", "pixels", "images", "image_pixels"):
        fields[key] = np.array(fields[key], np.int32 if key == "sizes" else np.int64)
    return Scan(**fields, spec=spec)
