"""Sources: random access to examples on disk, pairs of a decoded image and a decoded mask.

A data set has two folders, `images/<split>/` and `labels/<split>/`, with the same paths below them
except for the suffix. A file that cannot be used raises `InputError` naming it.
"""

import collections
import os
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from segjax.data import exif, png
from segjax.data.spec import DatasetSpec, ids_of_channel
from segjax.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_CONVERTIBLE = (".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".mat", ".npy")
_SHOWN = 3  # files named in one message

# A JPEG marker other than a stuffed byte, restart or filler; such a marker ends scan data.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9


class Source(Protocol):
    """Random access to examples by position, read by `pipeline`, `scan` and `study`."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """image uint8 [H, W, 3] RGB, label uint8 [H, W] with classes and VOID."""

    def name(self, index: int) -> str:
        """A path-like name without suffix, unique within the source."""


class FolderSource:
    """Image and mask files, decoded at every access.

    Args:
        pairs: (image, mask) paths, as `list_pairs` returns them.
        spec: the meaning of the ids in the masks.
        contents: int64 [N, 2, 2], length and CRC-32 of each image and of each mask, where files
            that changed since are to be refused.
    """

    def __init__(
        self,
        *,
        pairs: Sequence[tuple[Path, Path]],
        spec: DatasetSpec,
        contents: np.ndarray | None = None,
    ):
        self.pairs = tuple((Path(image), Path(label)) for image, label in pairs)
        self.spec = spec
        self._common: Path | None = None
        self._contents = contents

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """image uint8 [H, W, 3] RGB, label uint8 [H, W] with classes and VOID.

        Both stand upright: see `exif`.

        Raises:
            InputError: naming a file that cannot be decoded, has more than 8 bits a sample or an
                undeclared id, or has changed, or if image and mask differ in size.
        """
        image_path, label_path = self.pairs[index]
        image = decode_image(self._content(index, 0), str(image_path))
        raw = decode_ids(self._content(index, 1), str(label_path), self.spec)
        check_sizes(image, raw, image_path, label_path)
        return image, self.spec.encode(raw, str(label_path))

    def _content(self, index: int, part: int) -> bytes:
        """The bytes of an image (part 0) or a mask (part 1)."""
        path = self.pairs[index][part]
        data = read_bytes(path)
        if self._contents is not None:
            length, checksum = self._contents[index, part]
            if len(data) != length or zlib.crc32(data) != checksum:
                raise png.BadFileError(
                    f"{path}: changed since the data were checked at the start. Put the file of "
                    "then back and start again; `segjax prepare check` reads all files anew."
                )
        return data

    def name(self, index: int) -> str:
        """The image's path below `images/<split>/`, without suffix.

        For files in another layout: the path below the common folder of all images.
        """
        image, label = self.pairs[index]
        parts = zip(image.parts, label.parts, strict=False)
        split = next((i for i, pair in enumerate(parts) if pair[0] != pair[1]), 0)
        if (image.parts[split], label.parts[split]) == ("images", "labels"):
            return Path(*image.parts[split + 2 :]).with_suffix("").as_posix()
        if self._common is None:
            self._common = Path(os.path.commonpath([path.parent for path, _ in self.pairs]))
        return image.relative_to(self._common).with_suffix("").as_posix()

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self.pairs[index][0]

    def label_path(self, index: int) -> Path:
        """The mask's file."""
        return self.pairs[index][1]


class CachedSource:
    """A source that keeps decoded examples in memory (4 bytes a pixel) after their first use.

    Arrays are read-only because all readers share them. Two threads that read the same example at
    once may both decode it; the arrays stored first are kept. A pickled copy starts empty.
    """

    def __init__(self, source: Source):
        self.source = source
        self._examples: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """image uint8 [H, W, 3] RGB, label uint8 [H, W], read-only."""
        if index not in self._examples:
            example = self.source[index]
            for array in example:
                array.flags.writeable = False
            self._examples.setdefault(index, example)
        return self._examples[index]

    def __getstate__(self) -> dict:
        return {"source": self.source, "_examples": {}}

    def name(self, index: int) -> str:
        """The name in the source."""
        return self.source.name(index)


def read_bytes(path: Path) -> bytes:
    """The content of a file; BadFileError naming it if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise png.BadFileError(f"{path}: {error.strerror or error}.") from None


def read_image(path: Path) -> np.ndarray:
    """The image in a file, uint8 [H, W, 3] RGB, upright; see `decode_image`."""
    return decode_image(read_bytes(path), str(path))


def decode_image(data: bytes, where: str) -> np.ndarray:
    """Decodes an image to uint8 [H, W, 3] RGB; grey is repeated and alpha is dropped.

    It is turned upright as its EXIF orientation says: see `exif`.

    Args:
        data: content of the file.
        where: file name for errors, usually the path.

    Raises:
        BadFileError: if the file is not an image, is truncated or has more than 8 bits a sample.
    """
    turned = exif.orientation(data)
    if data.startswith(png.SIGNATURE):
        data = png.critical(png.read_chunks(data, where))
    elif data.startswith(b"\xff\xd8") and not _jpeg_is_whole(data):
        raise png.BadFileError(f"{where}: the JPEG is truncated.", "truncated")
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    image = png.inflate(exif.as_stored(data), flags)
    if image is None:
        raise png.BadFileError(
            f"{where}: not an image, damaged, or of an unknown kind; "
            f"known kinds: {', '.join(IMAGE_SUFFIXES)}."
        )
    if image.dtype != np.uint8:
        raise png.BadFileError(
            f"{where}: {image.dtype} samples; only 8 bits a sample are allowed.", "16 bit"
        )
    return exif.upright(image, turned)


def decode_ids(data: bytes, where: str, spec: DatasetSpec) -> np.ndarray:
    """Decodes a mask to raw ids, uint8 [H, W]; RGB masks by the colours or channel of `spec`."""
    mask = png.decode_mask(data, where)
    if mask.ndim == 2:
        return mask
    if spec.channel:
        return ids_of_channel(mask, spec.channel, where)
    return spec.ids_of_colors(mask, where)


def check_sizes(image: np.ndarray, mask: np.ndarray, image_path: Path, label_path: Path) -> None:
    """Raises BadFileError unless image [H, W, ...] and mask [H, W] have the same size."""
    if image.shape[:2] == mask.shape[:2]:
        return
    told = (
        f"{label_path}: the mask is {mask.shape[0]} x {mask.shape[1]}, but its image "
        f"{image_path.name} is {image.shape[0]} x {image.shape[1]} (height x width)"
    )
    turned = exif.orientation(read_bytes(image_path))
    if turned >= 5 and image.shape[1::-1] == mask.shape[:2]:
        told += (
            f" when it stands upright; the mask fits the stored pixels, which the EXIF orientation "
            f"{turned} turns. Remove it from the image, such as by exiftool -Orientation= FILE"
        )
    raise png.BadFileError(f"{told}.", "size mismatch")


def list_splits(root: Path) -> tuple[str, ...]:
    """Names of the folders in `root/images`, sorted; InputError if there is none."""
    images = Path(root) / "images"
    splits = sorted(p.name for p in images.iterdir() if p.is_dir()) if images.is_dir() else []
    splits = [name for name in splits if not name.startswith(".")]
    if not splits:
        raise InputError(
            f"{images}: no such folder, or it contains no split; "
            "a data set is images/<split>/ and labels/<split>/."
        )
    return tuple(splits)


def list_pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Pairs of the images in `root/images/<split>/**` and the masks in `root/labels/<split>/**`.

    See `pair_folders`.
    """
    return pair_folders(Path(root) / "images" / split, Path(root) / "labels" / split)


def pair_folders(
    images_folder: Path,
    labels_folder: Path,
    layout: str = "images/<split>/ and labels/<split>/",
    *,
    endings: tuple[str, str] = ("", ""),
) -> list[tuple[Path, Path]]:
    """Pairs of the images below one folder and the masks below another.

    Files pair by their path without suffix, however it spells its accents. Hidden files and files
    without an image suffix are ignored. Pairs are sorted, so that a position means the same example
    on every machine.

    Args:
        images_folder, labels_folder: folders, searched recursively.
        layout: description of the data set's files for errors.
        endings: endings of image names and mask names, instead of the suffix; see `files_by_stem`.

    Raises:
        InputError: if a folder is missing or empty, an image has no mask, a mask has no image, or
            two files in one folder differ only in the suffix.
    """
    folders = [images_folder, labels_folder]
    images, labels = (
        files_by_stem(folder, layout, ending)
        for folder, ending in zip(folders, endings, strict=True)
    )
    problems = [
        f"{len(missing)} {text} ({first_names(missing)}{_other_kinds(folder)})"
        for missing, text, folder in (
            (sorted(images.keys() - labels.keys()), "images without a mask", labels_folder),
            (sorted(labels.keys() - images.keys()), "masks without an image", images_folder),
        )
        if missing
    ]
    if problems:
        raise InputError(
            f"{folders[0]} and {folders[1]} do not pair up: {'; '.join(problems)}; paths of a "
            f"pair differ only in {' and '.join(filter(None, endings)) or 'the suffix'}."
        )
    # By the name on disk: how it spells its accents has always been part of the order.
    order = sorted(images, key=lambda stem: _stem(images[stem], images_folder, endings[0]))
    return [(images[stem], labels[stem]) for stem in order]


def files_by_stem(
    folder: Path, layout: str = "", ending: str = "", *, without: Path | None = None
) -> dict[str, Path]:
    """Image files by their path below `folder` without suffix, as `plain` spells it.

    The one reader of folders, of data sets and of photographs. Hidden files and files without an
    image suffix are passed over.

    Args:
        folder: searched recursively.
        layout: description of the data set's files for errors; "" for none.
        ending: if not empty, only files whose names end in it count, and the keys lose it.
        without: a folder that is not entered.

    Raises:
        InputError: if the folder is missing or empty, or two files have the same key.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder{layout and f'; a data set is {layout}'}.")
    files: dict[str, Path] = {}
    for path in _walk(folder, without):
        if not (path.name.endswith(ending) and path.name.lower().endswith(IMAGE_SUFFIXES)):
            continue
        stem = plain(_stem(path, folder, ending))
        if stem in files:
            raise InputError(
                f"{folder}: {files[stem].name} and {path.name} are two files for one example."
            )
        files[stem] = path
    if not files:
        expected = f"*{ending}" if ending else ", ".join(IMAGE_SUFFIXES)
        raise InputError(f"{folder}: holds no image file ({expected}{_other_kinds(folder)}).")
    return files


def plain(name: str) -> str:
    """A name with its accents composed: disks and archives keep either spelling (NFC, NFD)."""
    return unicodedata.normalize("NFC", name)


def _stem(path: Path, folder: Path, ending: str) -> str:
    return path.relative_to(folder).as_posix().removesuffix(ending or path.suffix)


def _walk(folder: Path, without: Path | None = None) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed: {error.strerror or error}.")

    # os.walk, because Path.rglob does not enter linked folders, and data sets often are links.
    left = without.resolve() if without else None
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        here = Path(parent)
        # A link to a folder above itself would be entered for ever.
        above = {place.resolve() for place in (here, *here.parents)}
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and (here / name).resolve() not in {*above, left}
        ]
        for name in sorted(names):
            if not name.startswith("."):
                yield here / name


def _other_kinds(folder: Path) -> str:
    """Text such as "; it holds 12 .gif: convert them to .png" on the commonest kind not read."""
    suffixes = collections.Counter(path.suffix.lower() for path in _walk(folder))
    others = [(kind, n) for kind, n in suffixes.most_common() if kind in _CONVERTIBLE]
    if not others:
        return ""
    kind, count = others[0]
    return f"; the folder holds {count} {kind}, which are not read: convert them to .png"


def first_names(names: Sequence[str]) -> str:
    """The first few names as text for a message."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _jpeg_is_whole(data: bytes) -> bool:
    """Whether the end marker follows the scans; OpenCV silently fills missing rows with grey.

    Walks from marker to marker (ITU-T T.81, annex B), so that the end marker of a thumbnail in a
    header does not count, nor does data that a camera appended to the image.
    """
    place = 2
    while marker := _JPEG_MARKER.search(data, place):
        if marker[1][0] == _JPEG_END:
            return True
        # Segments store their length; the scan data after a scan's header is searched.
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False
