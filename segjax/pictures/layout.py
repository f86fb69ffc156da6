"""Parts of pictures: cells, rows and columns, lines of text and legends, RGB uint8."""

import functools
import math
import os
from collections.abc import Sequence

import cv2
import numpy as np

from segjax import files
from segjax.data.spec import Color

_INK = (30, 30, 30)
_LINE = (130, 130, 130)
_BLANK = (238, 238, 238)  # the empty part of a cell
_DARK, _STROKE = (28, 28, 28), (88, 88, 88)
_LONGEST = 26  # letters; legends cut longer names


def fit(picture: np.ndarray, height: int, width: int, shrink: int) -> np.ndarray:
    """A picture [H, W, 3] or label [H, W] scaled to fit a cell, with its proportions kept.

    Args:
        picture: uint8.
        height, width: size of the cell.
        shrink: OpenCV's interpolation for reducing; enlarging never smooths.
    """
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = [max(1, round(scale * length)) for length in picture.shape[1::-1]]
    method = shrink if scale < 1 else cv2.INTER_NEAREST_EXACT
    return cv2.resize(picture, size, interpolation=method)


def center(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture in the middle of an empty cell: uint8 [height, width, 3]."""
    cell = np.full((height, width, 3), _BLANK, np.uint8)
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    cell[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return cell


def join(parts: Sequence[np.ndarray], *, axis: int, gap: int = 0) -> np.ndarray:
    """Pictures below each other (axis 0) or side by side (axis 1), padded with white."""
    extent = max(part.shape[1 - axis] for part in parts)
    filled = []
    for i, part in enumerate(parts):
        pad = [(0, 0), (0, 0), (0, 0)]
        pad[axis] = (gap if i else 0, 0)
        pad[1 - axis] = (0, extent - part.shape[1 - axis])
        filled.append(np.pad(part, pad, constant_values=255))
    return np.concatenate(filled, axis=axis)


def hatching(height: int, width: int) -> np.ndarray:
    """Diagonal strokes on a dark ground: uint8 [height, width, 3]."""
    diagonal = np.add.outer(np.arange(height), np.arange(width)) % 6 < 2
    return np.where(diagonal[..., None], _STROKE, _DARK).astype(np.uint8)


@functools.cache
def _font() -> cv2.FontFace:
    return cv2.FontFace("sans")


def _measure(text: str, size: int) -> int:
    """Width of a line of text in pixels; `size` is its height."""
    return cv2.getTextSize((0, 0), text, (0, 0), _font(), size, 400)[2]


def strip(text: str, width: int, size: int) -> np.ndarray:
    """A centred line of text on white: uint8 [1.6 size, width, 3]."""
    line = np.full((round(1.6 * size), width, 3), 255, np.uint8)
    left = max(0, (width - _measure(text, size)) // 2)
    cv2.putText(line, text, (left, round(1.15 * size)), _INK, _font(), size, 400)
    return line


def legend(
    entries: Sequence[tuple[str, Color | np.ndarray]], *, width: int, size: int
) -> np.ndarray:
    """A legend of swatches with names, row by row: uint8 [h, at least width, 3].

    A swatch is a colour or a picture [size, size, 3]. Long names are cut.
    """
    names = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name, _ in entries]
    pad, line = size // 2, round(1.6 * size)
    column = round(1.4 * size) + max(_measure(name, size) for name in names) + size
    columns = int(np.clip((width - pad) // column, 1, len(entries)))
    rows = math.ceil(len(entries) / columns)
    shape = (rows * line + 2 * pad, max(width, columns * column + pad), 3)
    picture = np.full(shape, 255, np.uint8)
    for i, (name, (_, swatch)) in enumerate(zip(names, entries, strict=True)):
        top, left = pad + i // columns * line, pad + i % columns * column
        picture[top : top + size, left : left + size] = swatch
        cv2.rectangle(picture, (left, top), (left + size - 1, top + size - 1), _LINE, 1)
        origin = (left + round(1.4 * size), top + round(0.86 * size))
        cv2.putText(picture, name, origin, _INK, _font(), size, 400)
    return picture


def encode_png(rgb: np.ndarray) -> bytes:
    """The bytes of a PNG file of a picture, uint8 [H, W, 3]; ValueError for anything else."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"A picture must be uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}.")
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def write_png(path: str | os.PathLike, rgb: np.ndarray) -> None:
    """Writes a picture, uint8 [H, W, 3], as a PNG; errors are those of `files.write`."""
    files.write(path, encode_png(rgb))
