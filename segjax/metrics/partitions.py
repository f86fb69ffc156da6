"""Partition scores: superpixels and segmentations without classes against human segmentations.

Integer pixel counts come from the device; the host computes ratios in float64. A human segmentation
is an int32 map; pixels with negative numbers have no truth and do not count. Against several
humans, a score is the mean over them.

Superpixels: Neubert and Protzel, "Superpixel Benchmark and Comparison", 2012 (undersegmentation
error); Liu et al., CVPR 2011 (achievable segmentation accuracy); Moore et al., CVPR 2008 (explained
variation); Schick et al., ICPR 2012 (compactness); as collected by Stutz et al., CVIU 2018.
Partitions: Arbelaez et al., PAMI 2011, section 3 (covering, probabilistic Rand index, variation of
information).
"""

import functools
from collections.abc import Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from segjax.metrics import region_boundaries


def superpixel_scores(
    image: np.ndarray, labels: np.ndarray, humans: Sequence[np.ndarray] | np.ndarray
) -> dict[str, float]:
    """The superpixel scores of a label map against human segmentations.

    Args:
        image: uint8 [H, W, 3], RGB.
        labels: int [H, W], 0 to K - 1.
        humans: int [H, W] each.

    Returns:
        `rec1` and `rec2` (boundary recall within r = 1 and 2 pixels), `ue`, `asa`, `ev` and `co`,
        all 0 to 1; `regions`, the number of regions; `pieces`, the number of 4-connected pieces.
    """
    counts = overlaps(labels, humans)
    hits = region_boundaries.recall_counts(labels, humans, radii=(1, 2))
    recall = [float(region_boundaries.mean_ratio(near, total)) for near, total in hits]
    return {
        "rec1": recall[0],
        "rec2": recall[1],
        "ue": float(np.mean([undersegmentation_error(count) for count in counts])),
        "asa": float(np.mean([achievable_accuracy(count) for count in counts])),
        "ev": explained_variation(image, labels),
        "co": compactness(labels),
        "regions": len(np.unique(labels)),
        "pieces": count_pieces(labels),
    }


def partition_scores(
    labels: np.ndarray, humans: Sequence[np.ndarray] | np.ndarray
) -> dict[str, float]:
    """The partition scores of a segmentation against human segmentations.

    Args:
        labels: int [H, W], 0 to K - 1.
        humans: int [H, W] each.

    Returns:
        `covering` and `pri`, 0 to 1; `vi` in bits, 0 or more; `regions`, the number of regions.
    """
    counts = overlaps(labels, humans)
    return {
        "covering": float(np.mean([covering(count) for count in counts])),
        "pri": float(np.mean([rand_index(count) for count in counts])),
        "vi": float(np.mean([variation_of_information(count) for count in counts])),
        "regions": len(np.unique(labels)),
    }


def overlaps(labels: np.ndarray, humans: Sequence[np.ndarray] | np.ndarray) -> list[np.ndarray]:
    """Pixels by (region, human segment), for each human.

    Args:
        labels: int [H, W], 0 to K - 1.
        humans: int [H, W] each; negative pixels do not count.

    Returns:
        int64 [K, G] for each human; G is its largest number plus one.
    """
    rows = int(labels.max()) + 1
    columns = [max(int(human.max()) + 1, 1) for human in humans]
    # Capacities are powers of two, so that few compiled programs serve a data set.
    capacity = _power_of_two(rows), _power_of_two(max(columns))
    on_device = jnp.asarray(labels, jnp.int32)
    counts = [_count(on_device, jnp.asarray(human, jnp.int32), *capacity) for human in humans]
    return [
        np.asarray(count, np.int64)[:rows, :segments]
        for count, segments in zip(counts, columns, strict=True)
    ]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _count(labels: jax.Array, human: jax.Array, rows: int, columns: int) -> jax.Array:
    index = jnp.where(human < 0, rows * columns, labels * columns + human)
    counts = jnp.zeros(rows * columns, jnp.int32).at[index.ravel()].add(1, mode="drop")
    return counts.reshape(rows, columns)


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()


def undersegmentation_error(counts: np.ndarray) -> float:
    """UE: leaks of superpixels over segments, each by its smaller side: [K, G] -> 0 to 1."""
    whole = counts.sum(axis=1, keepdims=True)
    return float(_ratio(np.minimum(counts, whole - counts).sum(), counts.sum()))


def achievable_accuracy(counts: np.ndarray) -> float:
    """ASA: share of correct pixels if superpixels take their best segments: [K, G] -> 0 to 1."""
    return float(_ratio(counts.max(axis=1).sum(), counts.sum()))


def covering(counts: np.ndarray) -> float:
    """Covering: best IoU of each human segment, weighted by its size: [K, G] -> 0 to 1."""
    union = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0) - counts
    best = (counts / np.maximum(union, 1)).max(axis=0)
    return float(_ratio((counts.sum(axis=0) * best).sum(), counts.sum()))


def rand_index(counts: np.ndarray) -> float:
    """Rand index: share of pixel pairs that both join or both part: [K, G] -> 0 to 1, or nan."""
    counts = counts.astype(np.float64)  # integers could overflow when squared
    total = counts.sum()
    parted = 0.5 * ((counts.sum(0) ** 2).sum() + (counts.sum(1) ** 2).sum()) - (counts**2).sum()
    return float(1 - _ratio(parted, 0.5 * total * (total - 1)))


def variation_of_information(counts: np.ndarray) -> float:
    """VI: H(S | G) + H(G | S) in bits (Meila 2005): [K, G] -> 0 or more."""
    share = counts / max(counts.sum(), 1)

    def entropy(p: np.ndarray) -> float:
        p = p[p > 0]
        return float(-(p * np.log2(p)).sum())

    value = 2 * entropy(share) - entropy(share.sum(axis=0)) - entropy(share.sum(axis=1))
    return max(value, 0.0)  # rounding may give a negative value


def explained_variation(image: np.ndarray, labels: np.ndarray) -> float:
    """EV: share of the colour variance between regions; 1 for an image of one colour.

    Args:
        image: uint8 [H, W, C].
        labels: int [H, W], 0 to K - 1.
    """
    pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
    flat = labels.ravel()
    count = np.maximum(np.bincount(flat), 1)
    sums = np.stack([np.bincount(flat, channel) for channel in pixels.T])
    center = pixels.mean(axis=0)
    total = ((pixels - center) ** 2).sum()
    within = (pixels**2).sum() - (sums**2 / count).sum()
    return float(1 - within / total) if total else 1.0


def compactness(labels: np.ndarray) -> float:
    """CO: mean isoperimetric quotient 4 pi |S| / perimeter^2 by size: int [H, W] -> 0 to pi / 4.

    The perimeter counts pixel edges, including those at the border of the image.
    """
    framed = np.pad(labels, 1, constant_values=-1)
    sides = np.zeros(labels.shape, np.int64)
    for shifted in (framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]):
        sides += shifted != labels
    perimeter = np.bincount(labels.ravel(), sides.ravel())
    size = np.bincount(labels.ravel()).astype(np.float64)
    quotient = 4 * np.pi * size / np.maximum(perimeter, 1) ** 2
    return float((size * quotient).sum() / labels.size)


def count_pieces(labels: np.ndarray) -> int:
    """Number of 4-connected pieces of equal labels: int [H, W] -> count.

    OpenCV counts them on a grid of twice the size, where a cell between two pixels joins them if
    their labels agree.
    """
    height, width = labels.shape
    grid = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    grid[::2, ::2] = 1
    grid[1::2, ::2] = labels[1:] == labels[:-1]
    grid[::2, 1::2] = labels[:, 1:] == labels[:, :-1]
    return cv2.connectedComponents(grid, connectivity=4)[0] - 1


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
