"""Images with an EXIF orientation: how many there are, and which reading their masks fit.

segjax reads images upright, see `segjax.data.exif`. A mask that was drawn on the stored pixels has
another size where the orientation exchanges height and width; where it does not, the edges of the
image tell: they are strong along the boundaries of a mask that lies right.
"""

import collections
from concurrent import futures
from pathlib import Path

import cv2
import numpy as np

from segjax.data import annotations, exif, png, sources
from segjax.errors import InputError

UPRIGHT, STORED, EITHER, NEITHER = "upright", "stored", "either", "neither"
_CLEAR = 1.1  # ratio of edges along the boundaries that tells the two readings apart


def report(source: sources.Source | annotations.RegionSource, name: str) -> str:
    """A line on the images of a split that have an orientation; "" if none has, or no files.

    Args:
        source: of the split.
        name: data set and split, for the line.
    """
    while isinstance(source, sources.CachedSource):
        source = source.source
    if isinstance(source, sources.FolderSource):
        pairs = source.pairs
    elif isinstance(source, annotations.AnnotatedFolder):
        pairs = tuple((image, masks[0]) for image, masks in source.files)
    else:
        return ""
    with futures.ThreadPoolExecutor() as pool:
        found = [one for one in pool.map(_fit_of, pairs) if one]
    return _line(name, found) if found else ""


def _line(name: str, found: list[tuple[Path, str]]) -> str:
    counts = collections.Counter(reading for _, reading in found)
    texts = {
        UPRIGHT: "the upright image, as they must",
        STORED: "the stored pixels",
        EITHER: "both readings, as far as can be told",
        NEITHER: "neither, or cannot be read",
    }
    told = []
    for reading, text in texts.items():
        if counts[reading]:
            names = sources.first_names([path.name for path, one in found if one == reading])
            cited = "" if reading == UPRIGHT else f" ({names})"
            told.append(f"{counts[reading]} fit {text}{cited}")
    line = (
        f"{name}: {len(found)} images carry an EXIF orientation and are read upright; of their "
        f"masks {'; '.join(told)}."
    )
    if counts[STORED]:
        line += " Remove the orientation of those images, such as by exiftool -Orientation= FILE."
    return line


def _fit_of(pair: tuple[Path, Path]) -> tuple[Path, str] | None:
    """The image and the reading that its mask fits; None for an image without orientation."""
    image_path, mask_path = pair
    orientation = 1
    try:
        orientation = exif.orientation(sources.read_bytes(image_path))
        if orientation == 1:
            return None
        image = sources.read_image(image_path)
        return image_path, fit(image, _numbers(mask_path), orientation)
    except InputError:
        return None if orientation == 1 else (image_path, NEITHER)


def _numbers(path: Path) -> np.ndarray:
    """A number a pixel that differs where the mask differs: int [H, W]."""
    data = sources.read_bytes(path)
    try:
        mask = png.decode_mask(data, str(path))
    except png.BadFileError:
        mask = png.decode_regions(data, str(path))  # 16 bits
    mask = mask.astype(np.int64)
    return mask if mask.ndim == 2 else mask @ np.array([1 << 16, 1 << 8, 1])


def fit(image: np.ndarray, mask: np.ndarray, orientation: int) -> str:
    """Which reading of an image a mask fits: UPRIGHT, STORED, EITHER or NEITHER.

    Args:
        image: uint8 [H, W, 3], upright.
        mask: int [H', W'].
        orientation: of the file, 2 to 8.
    """
    back = {6: 8, 8: 6}.get(orientation, orientation)
    readings = {UPRIGHT: image, STORED: exif.upright(image, back)}
    fitting = {key: one for key, one in readings.items() if one.shape[:2] == mask.shape}
    if len(fitting) < 2:
        return next(iter(fitting), NEITHER)
    upright, stored = (_edges(one, mask) for one in fitting.values())
    if upright > _CLEAR * stored:
        return UPRIGHT
    return STORED if stored > _CLEAR * upright else EITHER


def _edges(image: np.ndarray, mask: np.ndarray) -> float:
    """The mean gradient of an image along the boundaries of a mask; 0 if it has none."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across = np.abs(np.diff(grey, axis=1))[np.diff(mask, axis=1) != 0]
    down = np.abs(np.diff(grey, axis=0))[np.diff(mask, axis=0) != 0]
    values = np.concatenate([across, down])
    return float(values.mean()) if values.size else 0.0
