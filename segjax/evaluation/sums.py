"""Sums of batch outputs into the result of an evaluation."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from segjax.data import pipeline
from segjax.evaluation import steps
from segjax.evaluation.result import Example, Result, cut, examples
from segjax.metrics import confusion
from segjax.metrics.metric import Counts, Metric, add


class Sums:
    """Accumulates 64-bit counts, per-image arrays of metrics, and examples for the panel.

    Args:
        metrics: metrics of the evaluation.
        shown: data set indices of the images in the panel.
    """

    def __init__(self, metrics: Sequence[Metric], shown: set[int]):
        self._metrics, self._shown = tuple(metrics), shown
        self._totals: dict[str, Counts] = {metric.name: {} for metric in metrics}
        self._images: dict[str, dict[str, list]] = {metric.name: {} for metric in metrics}
        self._index: list[np.ndarray] = []
        self._panel: dict[int, Example] = {}
        self._maps: dict[str, dict[int, np.ndarray]] = {}
        self._before: np.ndarray | None = None

    def add(self, rows: np.ndarray, batch: pipeline.Batch, out: dict[str, Any]) -> None:
        """Adds an output of `Labeller.batches`."""
        counts = jax.tree.map(np.asarray, out["counts"])
        for metric in self._metrics:
            name = metric.name
            self._totals[name] = add(self._totals[name], counts[name], by_image=metric.by_image)
            for key, value in metric.keep(counts[name]).items():
                self._images[name].setdefault(key, []).append(value[rows >= 0])
        if "confusion_before" in out:
            before = np.asarray(out["confusion_before"], np.int64).sum(0)
            self._before = before if self._before is None else self._before + before
        self._index.append(rows[rows >= 0])
        if self._shown & set(batch["index"][batch["weight"] > 0].tolist()):
            self._keep_for_panel(batch, out)

    def _keep_for_panel(self, batch: pipeline.Batch, out: dict[str, Any]) -> None:
        for index, example in examples(batch, out["prediction"]).items():
            if index in self._shown:
                self._panel[index] = example
        for key in steps.SHOWN_MAPS:
            if key in out:
                maps = cut(batch, out[key])
                chosen = {index: maps[index] for index in self._shown & maps.keys()}
                self._maps.setdefault(key, {}).update(chosen)

    def result(self, programs: int) -> Result:
        """The result over all batches; `programs` is the number of compiled programs."""
        return Result(
            metrics=self._metrics,
            totals=self._totals,
            index=np.concatenate(self._index),
            images={
                name: {key: np.concatenate(parts) for key, parts in kept.items()}
                for name, kept in self._images.items()
            },
            panel=[self._panel[index] for index in sorted(self._panel)],
            maps={key: [kept[i] for i in sorted(kept)] for key, kept in self._maps.items()},
            before=None if self._before is None else confusion.report(self._before),
            programs=programs,
        )
