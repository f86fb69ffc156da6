"""The result of an evaluation: counts, and the scores that metrics make of them."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from segjax import sharding
from segjax.data import pipeline
from segjax.metrics import confusion
from segjax.metrics.metric import Counts, Metric

Example = tuple[np.ndarray, np.ndarray, np.ndarray]
"""image uint8 [H, W, 3], truth uint8 [H, W], prediction uint8 [H, W]."""


@dataclasses.dataclass(frozen=True)
class Result:
    """An evaluation.

    Attributes:
        metrics: that counted.
        totals: name of a metric -> its counts over all images.
        index: int64 [n], items of the data set, in the order of `images`.
        images: name of a metric -> what it keeps of every image, [n, ...] each.
        panel: some of the images, with their predictions.
        maps: what else `steps.MAPS` names, [H, W] for each image of `panel`: "uncertainty" where
            the protocol takes samples, "before" where a CRF stands behind the network.
        before: the scores before that CRF, or None.
        programs: how many were compiled.
    """

    metrics: tuple[Metric, ...]
    totals: dict[str, Counts]
    index: np.ndarray
    images: dict[str, Counts]
    panel: list[Example]
    maps: dict[str, list[np.ndarray]]
    before: confusion.Report | None
    programs: int

    @functools.cached_property
    def report(self) -> confusion.Report:
        """The confusion matrix and its scores."""
        return confusion.report(self.totals["mean_iou"]["confusion"])

    @property
    def marginals(self) -> np.ndarray:
        """int64 [n, 3, K], see `confusion.marginals`."""
        return self.images["mean_iou"]["marginals"]

    @functools.cached_property
    def descriptions(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Name of a metric -> its `Metric.describe`."""
        return {
            metric.name: metric.describe(self.totals[metric.name], self.images[metric.name])
            for metric in self.metrics
        }

    @property
    def examples(self) -> int:
        """How many images were seen."""
        return len(self.index)

    def scalars(self) -> dict[str, float]:
        """The scores of all metrics by their names, for logs; and `miou_before_crf`."""
        found: dict[str, float] = {}
        for metric in self.metrics:
            found |= metric.scores(self.totals[metric.name])
        before = {} if self.before is None else {"miou_before_crf": self.before.miou}
        return found | before


def examples(batch: pipeline.Batch, prediction: jax.Array | np.ndarray) -> dict[int, Example]:
    """Item of the data set -> example, of this process's rows that are no fill."""
    parts = [cut(batch, array) for array in (batch["image"], batch["label"], prediction)]
    images, labels, predictions = parts
    return {index: (image, labels[index], predictions[index]) for index, image in images.items()}


def cut(batch: pipeline.Batch, array: jax.Array | np.ndarray) -> dict[int, np.ndarray]:
    """Item of the data set -> its part of [B, H, W, ...], of this process's rows, without fill."""
    rows = sharding.local_rows(array) if isinstance(array, jax.Array) else array
    found = {}
    for row in np.flatnonzero(batch["weight"]):
        height, width = batch["size"][row]
        found[int(batch["index"][row])] = rows[row, :height, :width]
    return found
