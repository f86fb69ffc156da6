"""Boundary scores: how many of one map's boundary pixels lie near the other's.

Counts are taken on the device, in integers; ratios on the host. Where a distance is a tolerance,
a pixel may serve several (Csurka et al., BMVC 2013); the one-to-one matching of Martin et al.,
PAMI 2004, gives the same or less.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from segjax.classical import regions

Counts = tuple[np.ndarray, np.ndarray]
"""Found and all: int64 [A], one for each human."""


def within(mask: jax.Array, radius: int, *, disc: bool = False) -> jax.Array:
    """Pixels that have a set one near: bool [H, W] -> bool [H, W].

    Args:
        mask: what is looked for.
        radius: static, in pixels.
        disc: near is a Euclidean distance up to `radius`; else the window (2 radius + 1)^2.
    """
    height, width = mask.shape
    before = jnp.cumsum(jnp.pad(mask, ((0, 0), (1, 0))).astype(jnp.int32), axis=1)
    column = jnp.arange(width)
    near = jnp.zeros(mask.shape, bool)
    for down in range(-min(radius, height - 1), min(radius, height - 1) + 1):
        half = math.isqrt(radius**2 - down**2) if disc else radius
        stop, start = jnp.minimum(column + half + 1, width), jnp.maximum(column - half, 0)
        found = before[:, stop] > before[:, start]
        shifted = found[max(0, down) : height + min(0, down)]
        near |= jnp.pad(shifted, ((max(0, -down), max(0, down)), (0, 0)))
    return near


def recall_counts(
    labels: np.ndarray, humans: Sequence[np.ndarray], *, radii: Sequence[int]
) -> list[Counts]:
    """Human boundary pixels with one of `labels` in the (2r + 1)^2 window.

    Args:
        labels: int [H, W].
        humans: int [H, W] each; pixels below 0 have no truth and are no boundary.
        radii: r. Stutz et al. 2018 take round(0.0025 diagonal), 1 on BSDS500; older papers 2.

    Returns:
        For each radius, the counts of every human.
    """
    counts = np.asarray(_recall(*_stack(labels, humans), tuple(radii)), np.int64)[:, : len(humans)]
    return [(found, counts[-1]) for found in counts[:-1]]


@functools.partial(jax.jit, static_argnums=2)
def _recall(labels: jax.Array, humans: jax.Array, radii: tuple[int, ...]) -> jax.Array:
    truth = regions.boundaries(humans) & (humans >= 0)
    own = regions.boundaries(labels)
    found = [jnp.sum(truth & within(own, radius), axis=(1, 2)) for radius in radii]
    return jnp.stack([*found, jnp.sum(truth, axis=(1, 2))])


def f_counts(
    labels: np.ndarray, humans: Sequence[np.ndarray], *, tolerance: float = 0.0075
) -> dict[str, int]:
    """What boundary precision and recall are made of; add up images, then take `f_measure`.

    A pixel of the segmentation is right if any human has a boundary near it; recall is over all
    humans' pixels together, as in the BSDS500 benchmark. Boundaries are one pixel wide.

    Args:
        labels: int [H, W].
        humans: int [H, W] each; pixels below 0 have no truth and are no boundary.
        tolerance: share of the image's diagonal that is near.

    Returns:
        `right` of `drawn` pixels of the segmentation, `found` of `true` pixels of the humans.
    """
    radius = math.floor(tolerance * math.hypot(*labels.shape))
    right, drawn, found, true = np.asarray(_agree(*_stack(labels, humans), radius))
    return {"right": int(right), "drawn": int(drawn), "found": int(found), "true": int(true)}


@functools.partial(jax.jit, static_argnums=2)
def _agree(labels: jax.Array, humans: jax.Array, radius: int) -> jax.Array:
    own = regions.boundaries(labels, thin=True)
    truth = regions.boundaries(humans, thin=True) & (humans >= 0)
    right = own & within(truth.any(axis=0), radius, disc=True)
    found = truth & within(own, radius, disc=True)
    return jnp.stack([right.sum(), own.sum(), found.sum(), truth.sum()])


def f_measure(counts: dict[str, int]) -> dict[str, float]:
    """`precision`, `recall` and their harmonic mean `f`; nan where nothing was drawn or true."""
    precision = counts["right"] / counts["drawn"] if counts["drawn"] else float("nan")
    recall = counts["found"] / counts["true"] if counts["true"] else float("nan")
    f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"precision": precision, "recall": recall, "f": f}


def mean_ratio(found: np.ndarray, total: np.ndarray) -> float:
    """The mean over those humans who drew a boundary; nan if none did."""
    drew = total > 0
    return float(np.mean(found[drew] / total[drew])) if drew.any() else float("nan")


def _stack(labels: np.ndarray, humans: Sequence[np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """int32 [H, W] and [A, H, W], humans without truth up to a power of two: few programs."""
    capacity = 1 << (len(humans) - 1).bit_length()
    stacked = np.full((capacity, *labels.shape), -1, np.int32)
    stacked[: len(humans)] = humans
    return jnp.asarray(labels, jnp.int32), jnp.asarray(stacked)
