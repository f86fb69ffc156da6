"""Class boundary scores of label maps: boundary F1, Boundary IoU and accuracy in bands.

Boundary F1 (Csurka et al., BMVC 2013, as in Badrinarayanan et al., SegNet, PAMI 2017, section 4),
Boundary IoU (Cheng et al., CVPR 2021) and accuracy in bands around the true boundaries (Kohli et
al., IJCV 2009; Chen et al., DeepLab). The device counts, the host divides.

Pixels whose truth is VOID do not count, and a VOID neighbour makes no class boundary, because the
labels around it are unknown and not different. Only the bands also follow VOID, which marks the
boundaries in some data sets.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax.data.spec import VOID
from segjax.metrics import confusion
from segjax.metrics.metric import Counts, ImageMetric, by_class, number, numbers, percent

TOLERANCE = 0.0075
"""Tolerance of boundary F1 as a share of the image's diagonal, as in SegNet."""

RIM = 0.02
"""Width of a class's rim in Boundary IoU as a share of the image's diagonal."""

BANDS = (1, 2, 4, 8, 16, 32)
"""Widths of the bands to each side of a boundary in pixels."""

_OUTSIDE = 254  # label of pixels outside the image
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def radii(size: Sequence[int]) -> tuple[float, int]:
    """Tolerance of boundary F1, and width of a rim (at least 1), for an image of this size."""
    diagonal = math.hypot(*map(int, size))
    return TOLERANCE * diagonal, max(1, round(RIM * diagonal))


@functools.lru_cache(maxsize=64)
def disc(radius: float, capacity: int) -> np.ndarray:
    """The (down, right) steps of at most `radius`, padded with (0, 0): int32 [N, 2].

    N depends only on the integer `capacity`; `radius` must be below capacity + 1.
    """
    side = slice(-capacity, capacity + 1)
    steps = np.moveaxis(np.mgrid[side, side], 0, -1)
    steps = steps.reshape(-1, 2)
    table = np.zeros((np.sum((steps**2).sum(1) < (capacity + 1) ** 2), 2), np.int32)
    near = steps[(steps**2).sum(1) <= radius**2]
    table[: len(near)] = near
    return table


def counts(
    prediction: jax.Array,
    label: jax.Array,
    size: jax.Array,
    steps: jax.Array,
    rim: jax.Array,
    *,
    num_classes: int,
    capacity: int,
) -> dict[str, jax.Array]:
    """Class boundary counts of one image, from which the functions below compute scores.

    Args:
        prediction: uint8 [H, W], classes.
        label: uint8 [H, W], classes or VOID.
        size: int32 [2], the image's height and width on this canvas.
        steps: int32 [N, 2], result of `disc`.
        rim: int32 [], width of a rim.
        num_classes: K, below 254.
        capacity: see `disc`.

    Returns:
        `contour` int32 [4, K], boundary pixels of each class: those of the prediction near the
        truth's, all of the prediction, those of the truth near the prediction's, all of the truth.
        `rim` int32 [3, K] and `bands` int32 [len(BANDS), 3, K]: correct, true and predicted pixels
        of each class in a rim or a band.
    """
    valid = label != VOID
    predicted = jnp.where(valid, prediction, VOID)
    edges = [_edges(labels) for labels in (predicted, label)]
    drawn, true = (jnp.where(e, m, VOID) for e, m in zip(edges, (predicted, label), strict=True))
    contour = jnp.stack(
        [
            _by_class(predicted, _near(drawn, true, steps, capacity), num_classes),
            _by_class(predicted, edges[0], num_classes),
            _by_class(label, _near(true, drawn, steps, capacity), num_classes),
            _by_class(label, edges[1], num_classes),
        ]
    )
    rows, cols = jnp.arange(label.shape[0])[:, None], jnp.arange(label.shape[1])
    inside = (rows < size[0]) & (cols < size[1])
    rims = [_rim(labels, inside, rim) & valid for labels in (predicted, label)]
    both = rims[0] & rims[1] & (predicted == label)
    in_rims = [
        _by_class(label, both, num_classes),
        _by_class(label, rims[1], num_classes),
        _by_class(predicted, rims[0], num_classes),
    ]
    return {
        "contour": contour,
        "rim": jnp.stack(in_rims),
        "bands": _bands(predicted, label, inside, num_classes),
    }


def boundary_f1(contour: np.ndarray) -> tuple[float, np.ndarray]:
    """SegNet's boundary F1 from the counts of each image: int [n, 4, K] -> mean, float64 [K].

    The mean averages the F1 of the classes with a boundary in the truth over each image's classes,
    then over images. The F1 of a class averages over the images that have it. nan if there is none.
    """
    right, drawn, matched, true = np.moveaxis(np.asarray(contour, np.float64), 1, 0)
    precision = right / np.maximum(drawn, 1)
    recall = matched / np.maximum(true, 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    f1 = np.where(true > 0, f1, np.nan)
    by_image = [row[~np.isnan(row)].mean() for row in f1 if not np.isnan(row).all()]
    by_class = [col[~np.isnan(col)].mean() if not np.isnan(col).all() else np.nan for col in f1.T]
    return float(np.mean(by_image)) if by_image else float("nan"), np.array(by_class)


def boundary_iou(rim: np.ndarray) -> tuple[float, np.ndarray]:
    """Boundary IoU from the counts of each image: int [n, 3, K] -> mean, float64 [K].

    Counts are summed over images first, as for IoU; nan for an absent class.
    """
    total = np.asarray(rim, np.int64).sum(0)
    return float(confusion.miou(total)), confusion.iou(total)


def band_scores(bands: np.ndarray) -> dict[int, dict[str, float]]:
    """Width -> `pixel_accuracy` and `miou` in the band, from counts int [n, len(BANDS), 3, K]."""
    total = np.asarray(bands, np.int64).sum(0)
    return {
        width: {
            "pixel_accuracy": float(right.sum() / truth.sum()) if truth.any() else float("nan"),
            "miou": float(confusion.miou(np.stack([right, truth, predicted]))),
        }
        for width, (right, truth, predicted) in zip(BANDS, total, strict=True)
    }


def _edges(labels: jax.Array) -> jax.Array:
    """Pixels with a 4-neighbour of another class; VOID is not a class: bool [H, W]."""
    edges = jnp.zeros(labels.shape, bool)
    known = jnp.pad(labels, 1, constant_values=VOID)
    for step in _STEPS:
        other = _shifted(known, step, labels.shape)
        edges |= (other != labels) & (other != VOID)
    return edges & (labels != VOID)


def _near(labels: jax.Array, other: jax.Array, steps: jax.Array, reach: int) -> jax.Array:
    """Non-VOID pixels with the same class in `other` at one of `steps`: bool [H, W]."""
    framed = jnp.pad(other, reach, constant_values=VOID)

    def look(n: jax.Array, matched: jax.Array) -> jax.Array:
        start = steps[n] + reach
        return matched | (jax.lax.dynamic_slice(framed, start, labels.shape) == labels)

    matched: jax.Array = jax.lax.fori_loop(0, steps.shape[0], look, jnp.zeros(labels.shape, bool))
    return matched & (labels != VOID)


def _rim(labels: jax.Array, inside: jax.Array, width: jax.Array) -> jax.Array:
    """Pixels with another class or the image's border in the (2 width + 1)^2 window: bool."""
    labels = jnp.where(inside, labels, _OUTSIDE).astype(jnp.int16)
    least = jnp.where(labels == VOID, VOID, labels)
    most = jnp.where(labels == VOID, -1, labels)

    def grow(_: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        least, most = pair
        return _window(jnp.minimum, least), _window(jnp.maximum, most)

    ends: tuple[jax.Array, jax.Array] = jax.lax.fori_loop(0, width, grow, (least, most))
    return ends[0] != ends[1]


def _window(choose: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Minimum or maximum over 3 x 3 windows, first down, then across."""
    for axis in (0, 1):
        width = [(0, 0), (0, 0)]
        width[axis] = (1, 1)
        framed = jnp.pad(x, width, constant_values=_OUTSIDE)
        before, after = (
            jax.lax.slice_in_dim(framed, start, start + x.shape[axis], axis=axis)
            for start in (0, 2)
        )
        x = choose(choose(before, x), after)
    return x


def _bands(
    predicted: jax.Array, label: jax.Array, inside: jax.Array, num_classes: int
) -> jax.Array:
    """Correct, true and predicted pixels of each class in each band: int32 [len(BANDS), 3, K]."""
    framed = jnp.pad(jnp.where(inside, label, _OUTSIDE), 1, constant_values=_OUTSIDE)
    band = jnp.zeros(label.shape, bool)
    for step in _STEPS:
        other = _shifted(framed, step, label.shape)
        band |= (other != label) & (other != _OUTSIDE) & inside
    counted, done = [], 1
    for width in BANDS:
        band = jax.lax.fori_loop(done, width, lambda _, mask: _grown(mask), band)
        done, in_band = width, band & (label != VOID)
        kinds = (label, in_band & (predicted == label)), (label, in_band), (predicted, in_band)
        counted.append(jnp.stack([_by_class(*kind, num_classes) for kind in kinds]))
    return jnp.stack(counted)


def _grown(mask: jax.Array) -> jax.Array:
    """The pixels of a mask and their 8 neighbours."""
    for axis in (0, 1):
        first, last = (jnp.roll(mask, by, axis) for by in (1, -1))
        index = jnp.arange(mask.shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1))
        mask = mask | (first & (index > 0)) | (last & (index < mask.shape[axis] - 1))
    return mask


def _by_class(labels: jax.Array, mask: jax.Array, num_classes: int) -> jax.Array:
    """Number of pixels of each class in a mask: int32 [K]."""
    index = jnp.where(mask, labels, num_classes).astype(jnp.int32)
    index = jnp.minimum(index, num_classes)
    return jnp.zeros(num_classes + 1, jnp.int32).at[index.ravel()].add(1)[:-1]


def _shifted(framed: jax.Array, step: tuple[int, int], shape: tuple[int, ...]) -> jax.Array:
    """The neighbours at `step` in a map framed by one pixel: [*shape]."""
    y, x = 1 + step[0], 1 + step[1]
    return framed[y : y + shape[0], x : x + shape[1]]


class ClassBoundaries(ImageMetric):
    """Boundary F1, Boundary IoU and accuracy in bands around boundaries."""

    name = "boundaries"

    def inputs(self, sizes: np.ndarray, canvas: tuple[int, int]) -> dict[str, np.ndarray]:
        """`steps` int32 [B, N, 2] and `rim` int32 [B] of each image, see `counts`."""
        reach = [radii(size) for size in sizes]
        capacity = math.floor(radii(canvas)[0])
        discs = {near: disc(near, capacity) for near, _ in reach}
        return {
            "steps": np.stack([discs[near] for near, _ in reach]),
            "rim": np.array([rim for _, rim in reach], np.int32),
        }

    def count_image(
        self, prediction: jax.Array, label: jax.Array, size: jax.Array, **inputs: jax.Array
    ) -> dict[str, jax.Array]:
        """`contour`, `rim` and `bands`, see `counts`."""
        capacity = math.floor(radii(label.shape)[0])
        classes = self.spec.num_classes
        return counts(prediction, label, size, num_classes=classes, capacity=capacity, **inputs)

    def keep(self, counts: Counts) -> Counts:
        """All counts, because boundary F1 is a mean over images."""
        return {key: np.asarray(value, np.int64) for key, value in counts.items()}

    def scores(self, total: Counts) -> dict[str, float]:
        """No scalars for the log, because boundary F1 needs the counts of each image."""
        return {}

    def describe(self, total: Counts, images: Counts) -> tuple[str, dict[str, Any]]:
        """The scores in words; the scores by class and by width as fields."""
        f1, f1_by_class = boundary_f1(images["contour"])
        iou, iou_by_class = boundary_iou(images["rim"])
        bands = band_scores(images["bands"])
        near = ", ".join(f"{percent(s['pixel_accuracy'])} at {w}" for w, s in bands.items())
        summary = (
            f"boundary F1 {percent(f1)}, Boundary IoU {percent(iou)}; "
            f"pixel accuracy within pixels of a boundary: {near}"
        )
        return summary, {
            "boundary_f1": {
                "tolerance": TOLERANCE,
                "mean": number(f1),
                "by_class": by_class(f1_by_class, self.spec),
            },
            "boundary_iou": {
                "width": RIM,
                "mean": number(iou),
                "by_class": by_class(iou_by_class, self.spec),
            },
            "bands": {str(width): numbers(scores) for width, scores in bands.items()},
        }
