"""The interface of a metric: counts on the device, their sums, and the scores from them.

A user's metric is a subclass of `Metric`, named in `config.eval.metrics` as "module:Name" or
("module:Name", {option: value}); see docs/extending.md.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax.data.spec import VOID, DatasetSpec

Counts = dict[str, np.ndarray]
"""Name -> counts; `jax.Array` on the device."""


@dataclasses.dataclass(frozen=True)
class Pixels:
    """The scored pixels of a batch, or of a block of its rows.

    Attributes:
        logits: float32 [B, r, W, K].
        label: uint8 [B, r, W], classes or VOID.
        prediction: uint8 [B, r, W], the class with the largest logit.
    """

    logits: jax.Array
    label: jax.Array
    prediction: jax.Array

    @classmethod
    def of(cls, logits: jax.Array, label: jax.Array) -> "Pixels":
        """The pixels with their predictions; `logits` may have any float type."""
        logits = logits.astype(jnp.float32)
        return cls(logits, label, jnp.argmax(logits, axis=-1).astype(jnp.uint8))

    @property
    def valid(self) -> jax.Array:
        """Whether each pixel has a truth: bool [B, r, W]."""
        return self.label != VOID

    @property
    def confidence(self) -> jax.Array:
        """The probability of the predicted class: float32 [B, r, W]."""
        return jnp.exp(self.logits.max(-1) - jax.nn.logsumexp(self.logits, axis=-1))


class Metric:
    """A metric of pixels.

    `count` runs on the device for every block of rows of every batch; the other methods run on the
    host with the summed counts.

    Attributes:
        name: name of the metric in results.
        by_image: whether the first axis of every count is the image, [B, ...]; else counts belong
            to the whole batch.
    """

    name = ""
    by_image = False

    def __init__(self, spec: DatasetSpec):
        self.spec = spec

    def count(self, pixels: Pixels) -> dict[str, jax.Array]:
        """Counts that can be summed over rows and images; ratios cannot and belong to `scores`."""
        raise NotImplementedError

    def keep(self, counts: Counts) -> Counts:
        """Arrays [n, ...] to keep for each image, if the metric counts by image."""
        return {}

    def scores(self, total: Counts) -> dict[str, float]:
        """Scalars for the log; nan if nothing was counted.

        Args:
            total: counts of all images, int64 or float64.
        """
        raise NotImplementedError

    def describe(self, total: Counts, images: Counts) -> tuple[str, dict[str, Any]]:
        """The scores as a phrase for people, and further fields for the file of scores.

        Args:
            total: see `scores`.
            images: results of `keep` for all images.
        """
        return ", ".join(f"{key} {value:.4f}" for key, value in self.scores(total).items()), {}

    def empty(self) -> Counts:
        """The counts of no image, all 0."""
        row = jnp.zeros((1, 1, 1, self.spec.num_classes))
        shapes = jax.eval_shape(
            lambda logits: self.count(Pixels.of(logits, jnp.zeros((1, 1, 1), jnp.uint8))), row
        )
        return {
            key: np.zeros(x.shape[1:] if self.by_image else x.shape, _wide(x.dtype))
            for key, x in shapes.items()
        }


class ImageMetric(Metric):
    """A metric of whole label maps, counted one image at a time and not by blocks of rows.

    `segjax.evaluate` counts such metrics; training does not.
    """

    by_image = True

    def inputs(self, sizes: np.ndarray, canvas: tuple[int, int]) -> dict[str, np.ndarray]:
        """Arrays [B, ...] that the host computes for `count_image`.

        Args:
            sizes: int32 [B, 2], sizes of the images.
            canvas: (height, width) of their canvas.
        """
        return {}

    def count_image(
        self, prediction: jax.Array, label: jax.Array, size: jax.Array, **inputs: jax.Array
    ) -> dict[str, jax.Array]:
        """Counts of one image.

        Args:
            prediction, label: uint8 [H, W]; the label is VOID outside the image.
            size: int32 [2], size of the image on this canvas.
            **inputs: this image's rows of `inputs`.
        """
        raise NotImplementedError


def add(total: Counts, counts: Counts, *, by_image: bool) -> Counts:
    """The sum of a total and the counts of a batch, in 64 bits.

    Args:
        total: the total so far; {} before the first batch.
        counts: result of `Metric.count`.
        by_image: whether the first axis of the counts is the image.
    """
    added = {}
    for key, value in counts.items():
        value = wide(value)
        value = value.sum(0) if by_image else value
        added[key] = total[key] + value if key in total else value
    return added


def wide(counts: jax.Array | np.ndarray) -> np.ndarray:
    """The same counts in 64 bits, so that sums of them neither overflow nor lose digits."""
    return np.asarray(counts, _wide(counts.dtype))


def _wide(dtype: Any) -> type:
    """The 64-bit type of sums of a dtype."""
    return np.float64 if np.issubdtype(dtype, np.floating) else np.int64


def percent(value: float) -> str:
    """A share as a percentage with two decimals; "absent" for nan."""
    return "absent" if np.isnan(value) else f"{100 * value:.2f}"


def number(value: float) -> float | None:
    """A number for JSON, with None for nan."""
    return None if np.isnan(value) else float(value)


def numbers(values: dict[str, float]) -> dict[str, float | None]:
    """`number` of every value."""
    return {key: number(value) for key, value in values.items()}


def by_class(values: Sequence[float] | np.ndarray, spec: DatasetSpec) -> dict[str, float | str]:
    """Class name -> its value, "absent" for nan."""
    return {
        name: "absent" if np.isnan(value) else float(value)
        for name, value in zip(spec.classes, values, strict=True)
    }
