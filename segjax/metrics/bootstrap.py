"""Bootstrap intervals: the spread of a score over other images of the same kind.

A set of images is drawn with replacement and scored, many times (Efron, Tibshirani: An Introduction
to the Bootstrap, 1993, chapter 13). Images are the unit, because the pixels of one image are not
independent and would give far too narrow intervals. Similar images, such as the frames of a film,
still give intervals that are too narrow.
"""

import dataclasses

import numpy as np

from segjax.metrics import confusion

DRAWS = 2000
"""Number of drawn sets."""

LEVEL = 0.95
"""Share of the drawn scores that an interval contains."""


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
    weights = _draws(len(marginals), draws, seed)
    return _interval(
        float(confusion.miou(marginals.sum(0))), confusion.miou(_sums(weights, marginals))
    )


def miou_difference(a: np.ndarray, b: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """mIoU of `a` minus mIoU of `b` on the same images; each draw takes the same images of both."""
    weights = _draws(len(a), draws, seed)
    drawn = confusion.miou(_sums(weights, a)) - confusion.miou(_sums(weights, b))
    return _interval(float(confusion.miou(a.sum(0)) - confusion.miou(b.sum(0))), drawn)


def iou_differences(
    a: np.ndarray, b: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> list[Interval]:
    """`miou_difference` for the IoU of each of K classes; nan for an absent class."""
    weights = _draws(len(a), draws, seed)
    drawn = confusion.iou(_sums(weights, a)) - confusion.iou(_sums(weights, b))
    value = confusion.iou(a.sum(0)) - confusion.iou(b.sum(0))
    return [_interval(float(v), drawn[:, k]) for k, v in enumerate(value)]


def _draws(images: int, draws: int, seed: int) -> np.ndarray:
    """float64 [draws, n]: the number of times each image is drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)


def _sums(weights: np.ndarray, marginals: np.ndarray) -> np.ndarray:
    """Marginals of the drawn sets: [draws, n], [n, 3, K] -> float64 [draws, 3, K]."""
    flat = np.asarray(marginals, np.float64).reshape(len(marginals), -1)
    return (weights @ flat).reshape(len(weights), *marginals.shape[1:])


def _interval(value: float, drawn: np.ndarray) -> Interval:
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Interval(value, float("nan"), float("nan"))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(drawn, (tail, 100 - tail))
    return Interval(value, float(low), float(high))
