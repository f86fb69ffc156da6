"""Random access to examples on disk: pairs of an image and a mask, decoded.

Two folders make a data set: `images/<split>/` and `labels/<split>/`, with the same paths below
them but for the suffix. Every file that cannot be taken as it is raises `InputError` naming it.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from segjax.data import png
from segjax.data.spec import DatasetSpec, ids_of_channel
from segjax.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_SHOWN = 3  # files named in one message

# A marker that is no stuffed byte, restart or filler: within scan data, whatever ends it.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9


class Source(Protocol):
    """Examples by position; what `pipeline`, `scan` and `study` read from."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """image uint8 [H, W, 3] RGB, label uint8 [H, W] classes and VOID."""

    def name(self, index: int) -> str:
        """A path-like name without suffix, unique in the source."""


class FolderSource:
    """Image and mask files, decoded at every access.

    Args:
        pairs: (image, mask) paths, as `list_pairs` finds them.
        spec: gives the numbers in the masks their meaning.
    """

    def __init__(self, *, pairs: Sequence[tuple[Path, Path]], spec: DatasetSpec):
        self.pairs = tuple((Path(image), Path(label)) for image, label in pairs)
        self.spec = spec
        self._common: Path | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """image uint8 [H, W, 3] RGB, label uint8 [H, W] classes and VOID.

        The EXIF orientation of a training image is ignored: its mask was drawn on stored pixels.

        Raises:
            InputError: naming the file, if one cannot be decoded, holds more than 8 bits a sample
                or an id that the spec does not declare, or if the two sizes differ.
        """
        image_path, label_path = self.pairs[index]
        image = read_image(image_path)
        raw = decode_ids(read_bytes(label_path), str(label_path), self.spec)
        check_sizes(image, raw, image_path, label_path)
        return image, self.spec.encode(raw, str(label_path))

    def name(self, index: int) -> str:
        """The path below `images/<split>/` without suffix.

        Files that do not lie in two such folders: the path below the folder common to all images.
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
    """Another source, its decoded examples kept in memory (4 bytes a pixel) after first use.

    Arrays are read-only, since everyone gets the same ones. Two threads that ask for the same
    example at once may both decode it; the first one's arrays stay. A pickled copy starts empty.
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
        """As the source names it."""
        return self.source.name(index)

    @property
    def pairs(self) -> tuple[tuple[Path, Path], ...]:
        """The source's files."""
        return self.source.pairs

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self.source.image_path(index)

    def label_path(self, index: int) -> Path:
        """The mask's file."""
        return self.source.label_path(index)


def read_bytes(path: Path) -> bytes:
    """The whole file; an InputError names it if that fails."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise png.BadFileError(f"{path}: {error.strerror or error}.") from None


def read_image(path: Path, *, upright: bool = False) -> np.ndarray:
    """Reads an image file as uint8 [H, W, 3] RGB; see `decode_image`."""
    return decode_image(read_bytes(path), str(path), upright=upright)


def decode_image(data: bytes, where: str, *, upright: bool = False) -> np.ndarray:
    """An encoded image to uint8 [H, W, 3] RGB; grey is repeated, alpha is dropped.

    Args:
        data: the whole file.
        where: named in errors, usually the path.
        upright: turn the image as its EXIF orientation says. Off for training data, whose masks
            fit the stored pixels; on for a photograph that is to be looked at.

    Raises:
        BadFileError: if the file is no image, truncated, or has more than 8 bits a sample.
    """
    if data.startswith(png.SIGNATURE):
        png.read_chunks(data, where)
    elif data.startswith(b"\xff\xd8") and not _jpeg_is_whole(data):
        raise png.BadFileError(f"{where}: the JPEG is truncated.", "truncated")
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH
    image = png.inflate(data, flags if upright else flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise png.BadFileError(
            f"{where}: not an image that can be read, or a damaged one; "
            f"known are {', '.join(IMAGE_SUFFIXES)}."
        )
    if image.dtype != np.uint8:
        raise png.BadFileError(
            f"{where}: {image.dtype} samples; images of 8 bits a sample are read.", "16 bit"
        )
    return image


def decode_ids(data: bytes, where: str, spec: DatasetSpec) -> np.ndarray:
    """An encoded mask to raw ids, uint8 [H, W]; RGB masks by the colours or channel of `spec`."""
    mask = png.decode_mask(data, where)
    if mask.ndim == 2:
        return mask
    if spec.channel:
        return ids_of_channel(mask, spec.channel, where)
    return spec.ids_of_colors(mask, where)


def check_sizes(image: np.ndarray, mask: np.ndarray, image_path: Path, label_path: Path) -> None:
    """Raises InputError unless image [H, W, ...] and mask [H, W] have one size."""
    if image.shape[:2] != mask.shape[:2]:
        raise png.BadFileError(
            f"{label_path}: the mask is {mask.shape[0]} x {mask.shape[1]}, its image "
            f"{image_path.name} {image.shape[0]} x {image.shape[1]} (height x width).",
            "size mismatch",
        )


def list_splits(root: Path) -> tuple[str, ...]:
    """The folders under `root/images`, sorted; InputError if there is none."""
    images = Path(root) / "images"
    splits = sorted(p.name for p in images.iterdir() if p.is_dir()) if images.is_dir() else []
    splits = [name for name in splits if not name.startswith(".")]
    if not splits:
        raise InputError(
            f"{images}: no such folder with splits in it; "
            "a data set is images/<split>/ and labels/<split>/."
        )
    return tuple(splits)


def list_pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Images of `root/images/<split>/**` with the masks of `root/labels/<split>/**`.

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
    """The images below one folder with the masks below another.

    Files pair by their path without suffix; hidden files and files that are no images by their
    suffix are passed over. Sorted, so that a position means the same example on every machine.

    Args:
        images_folder, labels_folder: searched with all that is below them.
        layout: what a data set of this kind is made of, for errors.
        endings: of the images' names and of the masks', in the suffix's place; see `files_by_stem`.

    Raises:
        InputError: if a folder is missing or empty, an image has no mask, a mask no image, or two
            files of one folder differ in nothing but the suffix.
    """
    folders = [images_folder, labels_folder]
    images, labels = (
        files_by_stem(folder, layout, ending)
        for folder, ending in zip(folders, endings, strict=True)
    )
    problems = [
        f"{len(missing)} {text} ({first_names(missing)})"
        for missing, text in (
            (sorted(images.keys() - labels.keys()), "images without a mask"),
            (sorted(labels.keys() - images.keys()), "masks without an image"),
        )
        if missing
    ]
    if problems:
        raise InputError(
            f"{folders[0]} and {folders[1]} do not pair up: {'; '.join(problems)}; "
            f"a pair has one path but for {' and '.join(filter(None, endings)) or 'the suffix'}."
        )
    return [(images[stem], labels[stem]) for stem in sorted(images)]


def files_by_stem(folder: Path, layout: str, ending: str = "") -> dict[str, Path]:
    """Path below `folder` without suffix -> file, of every image file.

    Args:
        folder: searched with all that is below it.
        layout: what a data set of this kind is made of, for errors.
        ending: if not empty, only names that end so are taken, and lose all of it.

    Raises:
        InputError: if the folder is missing or empty, or two files have one such path.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a data set is {layout}.")
    files: dict[str, Path] = {}
    for path in _walk(folder):
        if not path.name.endswith(ending):
            continue
        stem = path.relative_to(folder).as_posix().removesuffix(ending or path.suffix)
        if stem in files:
            raise InputError(
                f"{folder}: {files[stem].name} and {path.name} are two files for one example."
            )
        files[stem] = path
    if not files:
        expected = f"*{ending}" if ending else ", ".join(IMAGE_SUFFIXES)
        raise InputError(f"{folder}: holds no image file ({expected}).")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    # os.walk, because Path.rglob does not enter linked folders, as which data sets are often kept.
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield Path(parent) / name


def first_names(names: Sequence[str]) -> str:
    """The first few of many names, for a message."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _jpeg_is_whole(data: bytes) -> bool:
    """Whether the end marker follows the scans; OpenCV fills a missing rest with grey, silently.

    Walks from marker to marker (ITU-T T.81, annex B), so that neither the end marker of a
    thumbnail in a header counts nor anything that a camera has put behind the image.
    """
    place = 2
    while marker := _JPEG_MARKER.search(data, place):
        if marker[1][0] == _JPEG_END:
            return True
        # Segments carry their length; scan data after a scan's header is searched through.
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False
