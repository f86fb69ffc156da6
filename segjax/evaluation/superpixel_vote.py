"""Majority vote of a network's predictions within superpixels, and its upper bound."""

import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from segjax import classical, files, tables
from segjax.classical import regions
from segjax.errors import InputError
from segjax.metrics import confusion


class Vote:
    """Confusion matrices of two labellings that are constant on each superpixel.

    `vote` gives each superpixel the class that the network predicts most often in it; `oracle`
    gives it the most frequent true class, an upper bound for labellings of these superpixels.

    Args:
        config: recipe of a classical method.
        num_classes: K.

    Raises:
        InputError: if the recipe has no method or one that needs a box, or there are several
            processes.
    """

    def __init__(self, config: ml_collections.ConfigDict, num_classes: int):
        if not config.method.name:
            raise InputError("--superpixels: the recipe has no config.method; take slic.")
        method = classical.build(**config.method)
        if classical.takes_box(method):
            raise InputError(f"--superpixels: {config.method.name} needs a box; take slic.")
        if jax.process_count() > 1:
            raise InputError("--superpixels works in one process only.")
        self._options = dict(config.method)
        self._classes = num_classes
        self._method = jax.jit(method)
        self._count = jax.jit(self._confusions, static_argnames="capacity")
        empty = np.zeros((num_classes, num_classes), np.int64)
        self.counts = {"vote": empty, "oracle": empty}
        self._regions: list[int] = []

    def add(self, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Counts an example: image uint8 [H, W, 3], truth and prediction uint8 [H, W]."""
        labels = self._method(image)
        count = int(labels.max()) + 1
        self._regions.append(count)
        capacity = (
            1 << (count - 1).bit_length()
        )  # a power of two, so that few programs are compiled
        counts = self._count(labels, truth, prediction, capacity=capacity)
        for key, value in counts.items():
            self.counts[key] = self.counts[key] + np.asarray(value, np.int64)

    def _confusions(
        self, labels: jax.Array, truth: jax.Array, prediction: jax.Array, *, capacity: int
    ) -> dict[str, jax.Array]:
        options = {"regions": capacity, "classes": self._classes}
        voted = {
            "vote": regions.vote(labels, prediction, **options),
            "oracle": regions.vote(labels, truth, **options),
        }
        truth = jnp.asarray(truth)
        return {key: confusion.count(v, truth, self._classes) for key, v in voted.items()}

    def reports(self) -> dict[str, confusion.Report]:
        """The scores of both labellings."""
        return {key: confusion.report(counts) for key, counts in self.counts.items()}

    def table(self, network: confusion.Report) -> str:
        """The scores of both labellings and the network as text."""
        rows = [
            (name, *(f"{100 * report.scalars()[key]:.2f}" for key in ("miou", "pixel_accuracy")))
            for name, report in {"network": network, **self.reports()}.items()
        ]
        text = tables.format_table(rows, ("labels", "mIoU %", "pixel accuracy %"))
        return f"{text}\n{self._options['name']}: {np.mean(self._regions):.1f} regions per image"

    def write(self, path: pathlib.Path, network: confusion.Report, mark: str) -> pathlib.Path:
        """Writes <path without suffix>-superpixels.json and returns its path.

        Args:
            path: JSON file of scores.
            network: scores of the network.
            mark: mark of its result, see `result.mark`.
        """
        path = path.with_name(f"{path.stem}-superpixels.json")
        fields = {
            "result": mark,
            "method": self._options,
            "regions_an_image": float(np.mean(self._regions)),
            "scores": {
                name: {k: None if np.isnan(v) else v for k, v in report.scalars().items()}
                for name, report in {"network": network, **self.reports()}.items()
            },
            "confusion": {key: counts.tolist() for key, counts in self.counts.items()},
        }
        files.write_json(path, fields)
        return path
