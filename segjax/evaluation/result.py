"""Result of an evaluation: counts, and the scores that metrics compute from them."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
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
    """Result of an evaluation.

    Attributes:
        metrics: metrics of the evaluation.
        totals: metric name -> counts summed over all images.
        index: int64 [n], data set indices, in the order of `images`.
        images: metric name -> arrays [n, ...] that it keeps for every image.
        panel: some of the images with their predictions.
        maps: further maps [H, W] of the images in `panel`: "uncertainty" if the protocol uses
            dropout samples, "before" (labels before the CRF) if it uses a CRF.
        before: scores before the CRF, or None.
        programs: number of compiled programs.
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
        """The confusion matrix and the scores computed from it."""
        return confusion.report(self.totals["mean_iou"]["confusion"])

    @property
    def marginals(self) -> np.ndarray:
        """int64 [n, 3, K], see `confusion.marginals`."""
        return self.images["mean_iou"]["marginals"]

    @functools.cached_property
    def descriptions(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Metric name -> result of `Metric.describe`."""
        return {
            metric.name: metric.describe(self.totals[metric.name], self.images[metric.name])
            for metric in self.metrics
        }

    @property
    def examples(self) -> int:
        """Number of images."""
        return len(self.index)

    def scalars(self) -> dict[str, float]:
        """The scores of all metrics for logs, with `miou_before_crf` if there is a CRF."""
        scores: dict[str, float] = {}
        for metric in self.metrics:
            scores |= metric.scores(self.totals[metric.name])
        before = {} if self.before is None else {"miou_before_crf": self.before.miou}
        return scores | before


def mark(names: Sequence[str], marginals: np.ndarray) -> str:
    """Digest of the counts of every image, which all files of one result carry.

    Args:
        names: names of the images.
        marginals: int64 [n, 3, K], see `confusion.marginals`.
    """
    digest = hashlib.sha256(json.dumps(list(names)).encode())
    digest.update(np.ascontiguousarray(marginals, "<i8").tobytes())
    return digest.hexdigest()


def examples(batch: pipeline.Batch, prediction: jax.Array | np.ndarray) -> dict[int, Example]:
    """Data set index -> example, for this process's rows without padding rows."""
    parts = [cut(batch, array) for array in (batch["image"], batch["label"], prediction)]
    images, labels, predictions = parts
    return {index: (image, labels[index], predictions[index]) for index, image in images.items()}


def cut(batch: pipeline.Batch, array: jax.Array | np.ndarray) -> dict[int, np.ndarray]:
    """Data set index -> its map cropped to the image, from [B, H, W, ...], without padding rows."""
    rows = sharding.local_rows(array) if isinstance(array, jax.Array) else array
    cropped = {}
    for row in np.flatnonzero(batch["weight"]):
        height, width = batch["size"][row]
        cropped[int(batch["index"][row])] = rows[row, :height, :width]
    return cropped
