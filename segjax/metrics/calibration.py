"""Expected calibration error: the gap between predicted probabilities and accuracy.

Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, section 2: the
probability of the predicted class sorts pixels into bins; the error is the mean distance between
this probability and the accuracy in a bin, weighted by the bin's pixels.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax import arrays
from segjax.metrics.metric import Counts, Metric, Pixels, percent

BINS = 15
"""Number of bins, equally wide."""

_STEPS = 1 << 23  # that the range of confidences has: their sums are whole numbers of steps
_CHUNK = 256  # pixels, whose sum of steps 32 bits hold
_FIELD = 10  # bits that a count of a chunk's pixels takes


def counts(confidence: jax.Array, right: jax.Array, valid: jax.Array) -> dict[str, jax.Array]:
    """Pixels, correct pixels and the sum of confidences of each bin.

    They are added as whole numbers: a sum of floats would stop at 2^24 pixels.

    Args:
        confidence: float32 [..., W], probability of the predicted class, 0 to 1; a bin contains its
            upper end.
        right: bool [..., W], whether the prediction is correct.
        valid: bool [..., W]; other pixels do not count.

    Returns:
        `pixels` and `right` int32 [BINS], exact for up to 2^31 pixels, and `confidence` float32
        [BINS], rounded once; nan if that of a pixel is.
    """
    index = jnp.clip(jnp.ceil(confidence * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
    index = jnp.where(valid, index, BINS)
    undefined = jnp.isnan(confidence)
    steps = jnp.where(undefined, 0, jnp.clip(jnp.round(confidence * _STEPS), 0, _STEPS))
    flags = 1 + (right.astype(jnp.uint32) << _FIELD) + (undefined.astype(jnp.uint32) << 2 * _FIELD)

    def in_bins(index: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.zeros(BINS + 1, jnp.uint32).at[index].add(x)[:-1]

    index, flags, steps = (
        _chunks(x, fill) for x, fill in ((index, BINS), (flags, 0), (steps.astype(jnp.uint32), 0))
    )
    for _ in index.shape[:-1]:  # image, row and chunk by itself: devices split them
        in_bins = jax.vmap(in_bins)
    flags, steps = in_bins(index, flags), in_bins(index, steps)
    pixels, right, undefined = (_total(flags >> _FIELD * k & (1 << _FIELD) - 1) for k in range(3))
    digits = [_total(steps >> 8 * k & 255).astype(jnp.float32) * 256**k for k in range(4)]
    total = arrays.total(digits) / _STEPS
    return {
        "pixels": pixels,
        "right": right,
        "confidence": jnp.where(undefined > 0, jnp.nan, total),
    }


def _chunks(x: jax.Array, fill: int) -> jax.Array:
    """Splits the last axis into chunks and fills the last one: [..., W] -> [..., n, _CHUNK]."""
    widths = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % _CHUNK)]
    return jnp.pad(x, widths, constant_values=fill).reshape(*x.shape[:-1], -1, _CHUNK)


def _total(x: jax.Array) -> jax.Array:
    """The sum over chunks: uint32 [..., BINS] -> int32 [BINS]."""
    return jnp.sum(x, axis=tuple(range(x.ndim - 1)), dtype=jnp.int32)


def expected_error(total: Counts) -> float:
    """The expected calibration error, 0 to 1, from `counts` or sums of them; nan without pixels."""
    pixels = np.sum(total["pixels"], dtype=np.int64)
    gaps = np.abs(np.asarray(total["confidence"], np.float64) - total["right"])
    return float(gaps.sum() / pixels) if pixels else float("nan")


class Calibration(Metric):
    """The expected calibration error."""

    name = "calibration"

    def count(self, pixels: Pixels) -> dict[str, jax.Array]:
        """See `counts`."""
        return counts(pixels.confidence, pixels.prediction == pixels.label, pixels.valid)

    def scores(self, total: Counts) -> dict[str, float]:
        """`ece`, 0 to 1."""
        return {"ece": expected_error(total)}

    def describe(self, total: Counts, images: Counts) -> tuple[str, dict[str, Any]]:
        """The error in percent."""
        return f"calibration error {percent(self.scores(total)['ece'])}", {}
