"""Pictures of regions without classes: boundaries on the image, mean colours, cut-outs."""

from collections.abc import Sequence

import cv2
import numpy as np

from segjax.pictures import label_maps, layout

_LINE = (255, 214, 0)
_BOX = (235, 40, 40)
_TEXT = 15  # pixels


def boundaries(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The image with region boundaries drawn on it: uint8 [H, W, 3], int [H, W] -> [H, W, 3]."""
    picture = image.copy()
    picture[label_maps.boundary(labels)] = _LINE
    return picture


def means(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The regions in their mean colours: uint8 [H, W, 3], int [H, W] -> uint8 [H, W, 3]."""
    flat = labels.ravel()
    count = np.maximum(np.bincount(flat), 1)
    sums = [np.bincount(flat, channel.ravel()) for channel in np.moveaxis(image, -1, 0)]
    colors = np.round(np.stack(sums, axis=1) / count[:, None]).astype(np.uint8)
    picture: np.ndarray = colors[labels]
    return picture


def cutout(image: np.ndarray, mask: np.ndarray, box: Sequence[int] | np.ndarray) -> np.ndarray:
    """The image with everything outside the mask dimmed, and the box drawn: uint8 [H, W, 3].

    Args:
        image: uint8 [H, W, 3].
        mask: int or bool [H, W].
        box: top, left, bottom, right; half-open.
    """
    inside = mask.astype(bool)
    picture = np.where(inside[..., None], image, image // 4 + 24)
    picture[label_maps.boundary(inside.astype(np.uint8))] = _LINE
    top, left, bottom, right = (int(side) for side in box)
    cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), _BOX, 1)
    return picture


def panel(rows: Sequence[tuple[str, Sequence[np.ndarray]]], titles: Sequence[str]) -> np.ndarray:
    """A table of pictures, one row per image with a line of text below it: uint8 [H', W', 3].

    Args:
        rows: (text, pictures uint8 [H, W, 3] of one size, as many as titles).
        titles: titles of the columns.
    """
    width = max(cell.shape[1] for _, cells in rows for cell in cells)
    heads = [layout.strip(title, width, _TEXT) for title in titles]
    parts = [layout.join(heads, axis=1, gap=4)]
    for text, cells in rows:
        cells = [layout.center(cell, cell.shape[0], width) for cell in cells]
        parts.append(layout.join(cells, axis=1, gap=4))
        parts.append(layout.strip(text, parts[0].shape[1], _TEXT))
    return layout.join(parts, axis=0, gap=4)


def partition_panel(rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Regions beside those that a person drew: uint8 [H', W', 3].

    Args:
        rows: (text, image uint8 [H, W, 3], regions and a person's int [H, W]).
    """
    cells = [
        (text, (boundaries(image, labels), means(image, labels), boundaries(image, human)))
        for text, image, labels, human in rows
    ]
    return panel(cells, ("regions", "mean colours", "a human"))


def cutout_panel(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> np.ndarray:
    """A panel of images, cutouts and targets: uint8 [H', W', 3].

    Args:
        rows: (text, image uint8 [H, W, 3], mask and target int or bool [H, W], box, see `cutout`).
    """
    cells = [
        (text, (image, cutout(image, mask, box), cutout(image, target, box)))
        for text, image, mask, target, box in rows
    ]
    return panel(cells, ("image", "cut out", "target"))
