"""Scores and labels, and every loss once more, in numpy and float64, straight from its formula."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from segjax import losses
from segjax.data.spec import VOID
from segjax.losses import pixels
from segjax.losses.place import Place
from segjax.models.features import Scores
from segjax.models.resize import Resize

K = 3
USERS = "tests.losses.made:Doubled"
EVERY = (*losses.LOSSES, USERS)
WEIGHTS = (0.5, 1.0, 3.0)


class Doubled:
    """A user's loss: twice the cross-entropy."""

    def __call__(self, place: Place) -> tuple[jax.Array, jax.Array]:
        """Summed loss and count."""
        return place.sum_pixels(
            lambda logits, label: 2 * pixels.cross_entropy(logits, label, place.class_weights)
        )


def formula(name: str) -> Callable:
    """The loss of this name, or USERS, in numpy: (logits, label) -> sum."""
    if name == USERS:
        return lambda logits, label: 2 * cross_entropy(logits, label)
    return {
        "cross_entropy": cross_entropy,
        "ohem": ohem,
        "focal": focal,
        "dice": dice,
        "lovasz_softmax": lovasz_softmax,
    }[name]


def random_scores(size: tuple[int, int] = (4, 5), seed: int = 0, batch: int = 2) -> Scores:
    values = np.random.default_rng(seed).normal(0, 3, (batch, *size, K)).astype(np.float32)
    return Scores(jnp.asarray(values), Resize("half_pixel", 4))


def random_label(size: tuple[int, int], seed: int = 0, batch: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, K, (batch, *size)).astype(np.uint8)
    label[rng.random(label.shape) < 0.3] = VOID
    return label


def place_of(logits: np.ndarray, label: np.ndarray, class_weights=None) -> Place:
    """Logits of the image's pixels, and their label."""
    scores = Scores(jnp.asarray(logits, jnp.float32), Resize("half_pixel", 1))
    return Place(scores, jnp.asarray(label), False, 2, class_weights)


def softmax(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def cross_entropy(logits: np.ndarray, label: np.ndarray, weights=None, smoothing=0.0) -> float:
    """Summed: -sum over classes of w_c q_c log p_c, q the smoothed target."""
    weights = np.ones(K) if weights is None else np.asarray(weights, np.float64)
    p, valid = softmax(logits), label != VOID
    target = np.eye(K)[np.where(valid, label, 0)] * (1 - smoothing) + smoothing / K
    return float(-(weights * target * np.log(p)).sum(-1)[valid].sum())


def cross_entropy_gradient(logits: np.ndarray, label: np.ndarray, weights=None) -> np.ndarray:
    weights = np.ones(K) if weights is None else np.asarray(weights, np.float64)
    target = np.where(label == VOID, 0, label)
    factor = np.where(label == VOID, 0, weights[target])
    return (softmax(logits) - np.eye(K)[target]) * factor[..., None]


def focal(logits: np.ndarray, label: np.ndarray, weights=None, gamma=2.0) -> float:
    """Summed."""
    total = 0.0
    p = softmax(logits)
    for place in np.argwhere(label != VOID):
        truth = label[*place]
        q = p[*place, truth]
        total -= (1 if weights is None else weights[truth]) * (1 - q) ** gamma * np.log(q)
    return float(total)


def ohem(logits, label, weights=None, threshold=0.7, share=1 / 16) -> float:
    """Summed over the hard pixels."""
    return cross_entropy(logits, hard(logits, label, threshold, share), weights)


def hard(logits, label, threshold=0.7, share=1 / 16) -> np.ndarray:
    """The label, VOID at easy pixels."""
    valid = label != VOID
    p = np.take_along_axis(softmax(logits), np.where(valid, label, 0)[..., None], -1)[..., 0]
    hardest = np.sort(p[valid])[: int(np.ceil(share * valid.sum()))]
    least = max(threshold, hardest[-1] if hardest.size else 0)
    return np.where(valid & (p <= least), label, VOID)


def over_classes(loss_of_class, logits, label, weights, classes: str) -> float:
    """The mean over classes, summed over images; `loss_of_class(probability, truth)`, flat."""
    weights = np.ones(K) if weights is None else np.asarray(weights)
    total = 0.0
    for p, t in zip(softmax(logits), label, strict=True):
        valid = t != VOID
        if not valid.any():
            continue
        counted = [c for c in range(K) if classes == "all" or (t == c).any()]
        of_classes = [weights[c] * loss_of_class(p[valid][:, c], t[valid] == c) for c in counted]
        total += np.mean(of_classes)
    return float(total)


def dice_of_class(p: np.ndarray, truth: np.ndarray) -> float:
    return 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)


def lovasz_of_class(p: np.ndarray, truth: np.ndarray) -> float:
    """The Choquet integral of 1 - IoU, as a set function of the pixels got wrong."""

    def lost(wrong: np.ndarray) -> float:
        union = (truth | wrong).sum()
        return wrong.sum() / union if union else 0.0

    errors = np.abs(truth - p)
    wrong, before, total = np.zeros(len(p), bool), 0.0, 0.0
    for pixel in np.argsort(-errors, kind="stable"):
        wrong[pixel] = True
        now = lost(wrong)
        total += errors[pixel] * (now - before)
        before = now
    return total


def dice(logits, label, weights=None, classes="present") -> float:
    return over_classes(dice_of_class, logits, label, weights, classes)


def lovasz_softmax(logits, label, weights=None, classes="present") -> float:
    return over_classes(lovasz_of_class, logits, label, weights, classes)


def slope(loss, logits: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The gradient of `loss(logits)` by central differences."""
    logits, found = np.array(logits, np.float64), np.zeros(np.shape(logits))
    for place in np.ndindex(*logits.shape):
        keep = logits[place]
        logits[place] = keep + step
        above = loss(logits)
        logits[place] = keep - step
        found[place] = (above - loss(logits)) / (2 * step)
        logits[place] = keep
    return found
