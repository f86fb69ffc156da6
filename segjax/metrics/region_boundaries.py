"""Region boundary scores: shares of one map's boundary pixels that lie near the other map's.

Integer counts come from the device; the host computes ratios. One boundary pixel may match several
pixels within the tolerance (Csurka et al., BMVC 2013); the one-to-one matching of Martin et al.,
PAMI 2004, gives equal or lower scores.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from segjax.classical import regions

Counts = tuple[np.ndarray, np.ndarray]
"""(matched, all) boundary pixels: int64 [A] each, one number for each human."""


def within(mask: jax.Array, radius: int, *, disc: bool = False) -> jax.Array:
    """Pixels with a set pixel of the mask nearby: bool [H, W] -> bool [H, W].

    Args:
        mask: the set pixels.
        radius: static, in pixels.
        disc: nearby means a Euclidean distance up to `radius`; else the (2 radius + 1)^2 window.
    """
    height, width = mask.shape
    before = jnp.cumsum(jnp.pad(mask, ((0, 0), (1, 0))).astype(jnp.int32), axis=1)
    column = jnp.arange(width)
    near = jnp.zeros(mask.shape, bool)
    for down in range(-min(radius, height - 1), min(radius, height - 1) + 1):
        half = math.isqrt(radius**2 - down**2) if disc else radius
        stop, start = jnp.minimum(column + half + 1, width), jnp.maximum(column - half, 0)
        in_row = before[:, stop] > before[:, start]
        shifted = in_row[max(0, down) : height + min(0, down)]
        near |= jnp.pad(shifted, ((max(0, -down), max(0, down)), (0, 0)))
    return near


def recall_counts(
    labels: np.ndarray, humans: Sequence[np.ndarray] | np.ndarray, *, radii: Sequence[int]
) -> list[Counts]:
    """Human boundary pixels with a boundary pixel of `labels` in the (2r + 1)^2 window.

    Args:
        labels: int [H, W].
        humans: int [H, W] each; pixels below 0 have no truth and are never boundary pixels.
        radii: r. Stutz et al. 2018 use round(0.0025 diagonal), 1 on BSDS500; older papers use 2.

    Returns:
        The counts of all humans for each radius.
    """
    counts = np.asarray(_recall(*_stack(labels, humans), tuple(radii)), np.int64)[:, : len(humans)]
    return [(matched, counts[-1]) for matched in counts[:-1]]


@functools.partial(jax.jit, static_argnums=2)
def _recall(labels: jax.Array, humans: jax.Array, radii: tuple[int, ...]) -> jax.Array:
    truth = regions.boundaries(humans) & (humans >= 0)
    drawn = regions.boundaries(labels)
    matched = [jnp.sum(truth & within(drawn, radius), axis=(1, 2)) for radius in radii]
    return jnp.stack([*matched, jnp.sum(truth, axis=(1, 2))])


def f_counts(
    labels: np.ndarray, humans: Sequence[np.ndarray] | np.ndarray, *, tolerance: float = 0.0075
) -> dict[str, int]:
    """Counts for boundary precision and recall; sum them over images, then call `f_measure`.

    A boundary pixel of the segmentation is right if any human has a boundary near it; recall counts
    the pixels of all humans together, as in the BSDS500 benchmark. Boundaries are one pixel wide.

    Args:
        labels: int [H, W].
        humans: int [H, W] each; pixels below 0 have no truth and are never boundary pixels.
        tolerance: largest distance of near pixels, as a share of the image's diagonal.

    Returns:
        `right` of `drawn` pixels of the segmentation and `found` of `true` pixels of the humans.
    """
    radius = math.floor(tolerance * math.hypot(*labels.shape))
    right, drawn, matched, true = np.asarray(_agree(*_stack(labels, humans), radius))
    return {"right": int(right), "drawn": int(drawn), "found": int(matched), "true": int(true)}


@functools.partial(jax.jit, static_argnums=2)
def _agree(labels: jax.Array, humans: jax.Array, radius: int) -> jax.Array:
    drawn = regions.boundaries(labels, thin=True)
    truth = regions.boundaries(humans, thin=True) & (humans >= 0)
    right = drawn & within(truth.any(axis=0), radius, disc=True)
    matched = truth & within(drawn, radius, disc=True)
    return jnp.stack([right.sum(), drawn.sum(), matched.sum(), truth.sum()])


def f_measure(counts: dict[str, int]) -> dict[str, float]:
    """`precision`, `recall` and their harmonic mean `f`; nan without drawn or true pixels."""
    precision = counts["right"] / counts["drawn"] if counts["drawn"] else float("nan")
    recall = counts["found"] / counts["true"] if counts["true"] else float("nan")
    f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": precision, "recall": recall, "f": f}


def mean_ratio(matched: np.ndarray, total: np.ndarray) -> float:
    """Mean of matched / total over the humans who drew a boundary; nan if none did."""
    drew = total > 0
    return float(np.mean(matched[drew] / total[drew])) if drew.any() else float("nan")


def _stack(
    labels: np.ndarray, humans: Sequence[np.ndarray] | np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """int32 [H, W] and [A, H, W]; humans without truth pad A to a power of two: few programs."""
    capacity = 1 << (len(humans) - 1).bit_length()
    stacked = np.full((capacity, *labels.shape), -1, np.int32)
    stacked[: len(humans)] = humans
    return jnp.asarray(labels, jnp.int32), jnp.asarray(stacked)
