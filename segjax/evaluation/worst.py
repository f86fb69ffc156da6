"""Picture of the worst images of an evaluation."""

import heapq
from collections.abc import Callable

import numpy as np

from segjax.data.spec import DatasetSpec
from segjax.evaluation.result import Example
from segjax.metrics import confusion
from segjax.pictures import label_maps

WORST = 20
"""Number of images in the picture."""


class Worst:
    """Keeps the images with the lowest mIoU.

    Args:
        keep: number of images to keep.
    """

    def __init__(self, keep: int = WORST):
        self._keep = keep
        self._heap: list[tuple[float, int, Example]] = []

    def add(self, index: int, example: Example, marginals: np.ndarray) -> None:
        """Adds an image, unless it has no labelled pixel.

        Args:
            index: data set index.
            example: the image with its labels.
            marginals: int [3, K], see `confusion.marginals`.
        """
        score = float(confusion.miou(marginals))
        if not np.isnan(score):
            push = heapq.heappush if len(self._heap) < self._keep else heapq.heappushpop
            push(self._heap, (-score, -index, example))

    def draw(self, spec: DatasetSpec, names: Callable[[int], str]) -> np.ndarray | None:
        """The picture uint8 [H, W, 3], worst image first; None without images.

        Args:
            spec: class names and colours.
            names: data set index -> image name.
        """
        images = sorted(self._heap, reverse=True)
        captions = [f"{names(-index)}: mIoU {-100 * score:.1f}" for score, index, _ in images]
        rows = [example for _, _, example in images]
        return label_maps.panel(rows, spec, captions=captions) if rows else None
