"""Bootstrap intervals: the spread of a score over other images of the same kind.

A set of images is drawn with replacement and scored, many times (Efron, Tibshirani: An Introduction
to the Bootstrap, 1993, chapter 13). Images are the unit, because the pixels of one image are not
independent and would give far too narrow intervals. Similar images, such as the frames of a film,
still give intervals that are too narrow.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from segjax.metrics import confusion

DRAWS = 2000
"""Number of drawn sets."""

LEVEL = 0.95
"""Share of the drawn scores that an interval contains."""


_SETS = 100  # drawn at once


@dataclasses.dataclass(frozen=True)
class Interval:
    """A score with its confidence interval.

    Attributes:
        value: the score of all images.
        low, high: ends of the interval of `LEVEL`.
    """

    value: float
    low: float
    high: float


def miou(marginals: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """mIoU of n images with its interval.

    Args:
        marginals: int [n, 3, K], `confusion.marginals` of each image.
        draws: number of drawn sets, n images each.
        seed: seed of the draws.
    """
    (sums,) = _drawn(draws, seed, marginals)
    return _interval(confusion.miou(marginals.sum(0)), confusion.miou(sums))


def differences(
    a: np.ndarray, b: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> tuple[Interval, list[Interval]]:
    """Scores of `a` minus those of `b`; each draw takes the same images of both.

    Args:
        a, b: int [n, 3, K], see `miou`.
        draws, seed: see `miou`.

    Returns:
        mIoU, and the IoU of each of K classes; nan for an absent class.
    """
    drawn, whole = _drawn(draws, seed, a, b), (a.sum(0), b.sum(0))

    def difference(score: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return score(whole[0]) - score(whole[1]), score(drawn[0]) - score(drawn[1])

    total = _interval(*difference(confusion.miou))
    value, by_class = difference(confusion.iou)
    return total, [_interval(v, by_class[:, k]) for k, v in enumerate(value)]


def _drawn(draws: int, seed: int, *marginals: np.ndarray) -> list[np.ndarray]:
    """Marginals of the drawn sets: each [n, 3, K] -> float64 [draws, 3, K], exact below 2^53.

    A few sets at a time: how often each image is drawn into each set would be a large matrix.
    """
    rng, images = np.random.default_rng(seed), len(marginals[0])
    share = np.full(images, 1 / images)
    flat = [np.asarray(m, np.float64).reshape(images, -1) for m in marginals]
    sums = [np.empty((draws, *m.shape[1:])) for m in marginals]
    for first in range(0, draws, _SETS):
        sets = slice(first, min(first + _SETS, draws))
        times = rng.multinomial(images, share, size=sets.stop - first).astype(np.float64)
        for out, values in zip(sums, flat, strict=True):
            out[sets] = (times @ values).reshape(out[sets].shape)
    return sums


def _interval(value: float | np.ndarray, drawn: np.ndarray) -> Interval:
    value = float(value)
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Interval(value, float("nan"), float("nan"))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(drawn, (tail, 100 - tail))
    return Interval(value, float(low), float(high))
