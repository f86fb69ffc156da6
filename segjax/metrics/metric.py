"""What a metric is: what the device counts, how counts add up, what they come to.

A metric of one's own is a subclass of `Metric`, named in `config.eval.metrics` as "module:Name" or
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
"""Name -> what was counted; `jax.Array` on the device."""


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Scored pixels of a batch: a block of its rows.

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
        """Pixels with their predictions; `logits` of any float type."""
        logits = logits.astype(jnp.float32)
        return cls(logits, label, jnp.argmax(logits, axis=-1).astype(jnp.uint8))

    @property
    def valid(self) -> jax.Array:
        """Whether a pixel has a truth: bool [B, r, W]."""
        return self.label != VOID

    @property
    def confidence(self) -> jax.Array:
        """The probability of the predicted class: float32 [B, r, W]."""
        return jnp.exp(self.logits.max(-1) - jax.nn.logsumexp(self.logits, axis=-1))


class Metric:
    """A metric of pixels.

    `count` runs on the device, once for every block of rows of every batch; the rest runs on the
    host when all counts have been added up.

    Attributes:
        name: of the metric, in results.
        by_image: whether the first axis of every count is the image, [B, ...]; else counts are
            those of the whole batch.
    """

    name = ""
    by_image = False

    def __init__(self, spec: DatasetSpec):
        self.spec = spec

    def count(self, pixels: Pixels) -> dict[str, jax.Array]:
        """Counts that add up over rows and images. Ratios do not: leave them to `scores`."""
        raise NotImplementedError

    def keep(self, counts: Counts) -> Counts:
        """What is kept of every image, [n, ...] each; of metrics that count by image."""
        return {}

    def scores(self, total: Counts) -> dict[str, float]:
        """Scalars for the log; nan where nothing was counted.

        Args:
            total: counts of all images, int64 or float64.
        """
        raise NotImplementedError

    def describe(self, total: Counts, images: Counts) -> tuple[str, dict[str, Any]]:
        """The scores as a phrase for people, and what the file of scores holds beside the scalars.

        Args:
            total: as of `scores`.
            images: what `keep` kept, of all images.
        """
        return ", ".join(f"{key} {value:.4f}" for key, value in self.scores(total).items()), {}

    def empty(self) -> Counts:
        """The total of no image."""
        row = jnp.zeros((1, 1, 1, self.spec.num_classes))
        shapes = jax.eval_shape(
            lambda logits: self.count(Pixels.of(logits, jnp.zeros((1, 1, 1), jnp.uint8))), row
        )
        return {
            key: np.zeros(x.shape[1:] if self.by_image else x.shape, _wide(x.dtype))
            for key, x in shapes.items()
        }


class ImageMetric(Metric):
    """A metric of whole label maps, which blocks of rows cannot count: one image at a time.

    Such metrics are counted by `segjax.evaluate`, not while a network trains.
    """

    by_image = True

    def inputs(self, sizes: np.ndarray, canvas: tuple[int, int]) -> dict[str, np.ndarray]:
        """What the host tells the device of each image: arrays [B, ...].

        Args:
            sizes: int32 [B, 2], of the images.
            canvas: (height, width) that they lie on.
        """
        return {}

    def count_image(
        self, prediction: jax.Array, label: jax.Array, size: jax.Array, **inputs: jax.Array
    ) -> dict[str, jax.Array]:
        """Counts of one image.

        Args:
            prediction, label: uint8 [H, W]; the label is VOID beyond the image.
            size: int32 [2], of the image on this canvas.
            **inputs: of `inputs`, of this image.
        """
        raise NotImplementedError


def add(total: Counts, counts: Counts, *, by_image: bool) -> Counts:
    """A total with the counts of a batch added, in 64 bits.

    Args:
        total: {} before the first batch.
        counts: of `Metric.count`.
        by_image: whether their first axis is the image.
    """
    added = {}
    for key, value in counts.items():
        value = np.asarray(value, _wide(value.dtype))
        value = value.sum(0) if by_image else value
        added[key] = total[key] + value if key in total else value
    return added


def _wide(dtype: Any) -> type:
    return np.float64 if np.issubdtype(dtype, np.floating) else np.int64


def percent(value: float) -> str:
    """A share as a percentage with two decimals; "absent" for nan."""
    return "absent" if np.isnan(value) else f"{100 * value:.2f}"


def number(value: float) -> float | None:
    """A number for JSON, which has no nan: None."""
    return None if np.isnan(value) else float(value)


def numbers(values: dict[str, float]) -> dict[str, float | None]:
    """The same of every value."""
    return {key: number(value) for key, value in values.items()}


def by_class(values: Sequence[float], spec: DatasetSpec) -> dict[str, float | str]:
    """Class name -> its value, "absent" for nan."""
    return {
        name: "absent" if np.isnan(value) else float(value)
        for name, value in zip(spec.classes, values, strict=True)
    }
