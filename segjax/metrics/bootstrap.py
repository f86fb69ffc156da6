"""How far a score would move with other images of the same kind: the bootstrap.

Images are drawn anew, with replacement, and the score of the drawn set is taken, as often as
wanted (Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13). Scores of pixels as
if these were independent would be far too sure of themselves; so are those of images that are
alike, such as the frames of a film.
"""

import dataclasses

import numpy as np

from segjax.metrics import confusion

DRAWS = 2000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
    """A score and its interval.

    Attributes:
        value: of all images.
        low, high: its interval of `LEVEL`.
    """

    value: float
    low: float
    high: float


def miou(marginals: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """mIoU with its interval.

    Args:
        marginals: int [n, 3, K], of every image: see `confusion.marginals`.
        draws: sets of n images that are drawn.
        seed: of the draws.
    """
    weights = _draws(len(marginals), draws, seed)
    return _interval(
        float(confusion.miou(marginals.sum(0))), confusion.miou(_sums(weights, marginals))
    )


def miou_difference(a: np.ndarray, b: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """mIoU of `a` less that of `b` on the same images, each draw taking the same of both."""
    weights = _draws(len(a), draws, seed)
    drawn = confusion.miou(_sums(weights, a)) - confusion.miou(_sums(weights, b))
    return _interval(float(confusion.miou(a.sum(0)) - confusion.miou(b.sum(0))), drawn)


def iou_differences(a: np.ndarray, b: np.ndarray, *, draws: int = DRAWS, seed: int = 0):
    """The same for the IoU of every class: a list of K; nan where a class is absent."""
    weights = _draws(len(a), draws, seed)
    drawn = confusion.iou(_sums(weights, a)) - confusion.iou(_sums(weights, b))
    value = confusion.iou(a.sum(0)) - confusion.iou(b.sum(0))
    return [_interval(float(v), drawn[:, k]) for k, v in enumerate(value)]


def _draws(images: int, draws: int, seed: int) -> np.ndarray:
    """float64 [draws, n]: how often each image is drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)


def _sums(weights: np.ndarray, marginals: np.ndarray) -> np.ndarray:
    """[draws, n], [n, 3, K] -> float64 [draws, 3, K]."""
    flat = np.asarray(marginals, np.float64).reshape(len(marginals), -1)
    return (weights @ flat).reshape(len(weights), *marginals.shape[1:])


def _interval(value: float, drawn: np.ndarray) -> Interval:
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Interval(value, float("nan"), float("nan"))
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(drawn, (tail, 100 - tail))
    return Interval(value, float(low), float(high))
