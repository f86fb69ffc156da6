"""The worst images of an evaluation, as a picture."""

import heapq
from collections.abc import Callable

import numpy as np

from segjax.data.spec import DatasetSpec
from segjax.evaluation.result import Example
from segjax.metrics import confusion
from segjax.pictures import label_maps

WORST = 20
"""Images that are drawn."""


class Worst:
    """Keeps the images with the least mIoU.

    Args:
        keep: how many.
    """

    def __init__(self, keep: int = WORST):
        self._keep = keep
        self._heap: list[tuple[float, int, Example]] = []

    def add(self, index: int, example: Example, marginals: np.ndarray) -> None:
        """Takes an image: its item of the data set and int [3, K]; unlabelled, it has no score."""
        score = float(confusion.miou(marginals))
        if not np.isnan(score):
            push = heapq.heappush if len(self._heap) < self._keep else heapq.heappushpop
            push(self._heap, (-score, -index, example))

    def draw(self, spec: DatasetSpec, names: Callable[[int], str]) -> np.ndarray | None:
        """A picture uint8 [H, W, 3], the worst image first; None if there is none.

        Args:
            spec: names and colours.
            names: item of the data set -> its name.
        """
        found = sorted(self._heap, reverse=True)
        captions = [f"{names(-index)}: mIoU {-100 * score:.1f}" for score, index, _ in found]
        rows = [example for _, _, example in found]
        return label_maps.panel(rows, spec, captions=captions) if rows else None
