"""Expected calibration error: the gap between predicted probabilities and accuracy.

Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, section 2: the
probability of the predicted class sorts pixels into bins; the error is the mean distance between
this probability and the accuracy in a bin, weighted by the bin's pixels.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax.metrics.metric import Counts, Metric, Pixels, percent

BINS = 15
"""Number of bins, equally wide."""


def counts(confidence: jax.Array, right: jax.Array, valid: jax.Array) -> jax.Array:
    """Pixels, sum of their confidence, and correct pixels of each bin: float32 [3, BINS].

    Args:
        confidence: float32 [...], probability of the predicted class, 0 to 1; a bin contains its
            upper end.
        right: bool [...], whether the prediction is correct.
        valid: bool [...]; other pixels do not count.
    """
    index = jnp.clip(jnp.ceil(confidence * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
    index = jnp.where(valid, index, BINS).ravel()
    columns = jnp.stack([jnp.ones_like(confidence), confidence, right.astype(jnp.float32)])
    sums = jnp.zeros((3, BINS + 1), jnp.float32)
    return sums.at[:, index].add(columns.reshape(3, -1))[:, :-1]


def expected_error(counts: np.ndarray) -> float:
    """The expected calibration error, 0 to 1: float [3, BINS] -> float; nan without pixels."""
    pixels, confidence, right = np.asarray(counts, np.float64)
    if not pixels.sum():
        return float("nan")
    return float(np.abs(confidence - right).sum() / pixels.sum())


class Calibration(Metric):
    """The expected calibration error."""

    name = "calibration"

    def count(self, pixels: Pixels) -> dict[str, jax.Array]:
        """`calibration` float32 [3, BINS], see `counts`."""
        right = pixels.prediction == pixels.label
        return {"calibration": counts(pixels.confidence, right, pixels.valid)}

    def scores(self, total: Counts) -> dict[str, float]:
        """`ece`, 0 to 1."""
        return {"ece": expected_error(total["calibration"])}

    def describe(self, total: Counts, images: Counts) -> tuple[str, dict[str, Any]]:
        """The error in percent."""
        return f"calibration error {percent(self.scores(total)['ece'])}", {}
