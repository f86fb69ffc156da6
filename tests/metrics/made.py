"""Metrics as a user would write them, and scored pixels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax.data.spec import VOID, DatasetSpec
from segjax.metrics import ImageMetric, Metric
from segjax.metrics.metric import Counts, Pixels
from tests import tiny


class Sure(Metric):
    """The share of labelled pixels that are correct and predicted with a high probability.

    Args:
        spec: the classes.
        above: the probability to exceed.
    """

    name = "sure"
    by_image = True

    def __init__(self, spec: DatasetSpec, above: float = 0.0):
        super().__init__(spec)
        self.above = above

    def count(self, pixels: Pixels) -> dict[str, jax.Array]:
        right = pixels.valid & (pixels.prediction == pixels.label)
        sure = right & (pixels.confidence > self.above)
        return {name: x.sum((1, 2)) for name, x in (("sure", sure), ("valid", pixels.valid))}

    def keep(self, counts: Counts) -> Counts:
        return {"share": counts["sure"] / np.maximum(counts["valid"], 1)}

    def scores(self, total: Counts) -> dict[str, float]:
        return {"sure": float(total["sure"] / total["valid"]) if total["valid"] else np.nan}

    def describe(self, total: Counts, images: Counts) -> tuple[str, dict[str, Any]]:
        return f"sure {self.scores(total)['sure']:.3f}", {
            "least_sure": float(images["share"].min())
        }


class Confident(Metric):
    """The mean probability of the predicted class; a metric without a name."""

    def count(self, pixels: Pixels) -> dict[str, jax.Array]:
        return {
            "sum": jnp.sum(pixels.confidence * pixels.valid),
            "pixels": jnp.sum(pixels.valid, dtype=jnp.int32),
        }

    def scores(self, total: Counts) -> dict[str, float]:
        return {"confident": float(total["sum"]) / total["pixels"] if total["pixels"] else np.nan}


class Corner(ImageMetric):
    """Whether the last pixel of an image is correct, which needs the whole image."""

    name = "corner"

    def inputs(self, sizes: np.ndarray, canvas: tuple[int, int]) -> dict[str, np.ndarray]:
        return {"last": np.asarray(sizes, np.int32) - 1}

    def count_image(self, prediction, label, size, *, last) -> dict[str, jax.Array]:
        y, x = last
        valid = label[y, x] != VOID
        return {"right": valid & (prediction[y, x] == label[y, x]), "valid": valid}

    def keep(self, counts: Counts) -> Counts:
        return {"right": counts["right"]}

    def scores(self, total: Counts) -> dict[str, float]:
        return {"corner": float(total["right"] / total["valid"]) if total["valid"] else np.nan}


class Loud(Confident):
    """A metric whose scalar has the name of a built-in one."""

    def scores(self, total: Counts) -> dict[str, float]:
        return {"loss": 1.0}


NOT_A_METRIC = 3


def scored(seed: int = 0, rows: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 [B, 32, 48, K] and labels uint8 [B, 32, 48], some of them VOID."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, *tiny.SIZE, tiny.K)).astype(np.float32)
    label = rng.integers(0, tiny.K, (rows, *tiny.SIZE), np.uint8)
    return logits, np.where(rng.random(label.shape) < 0.2, VOID, label).astype(np.uint8)
