"""Class boundary scores against closed forms, brute force and OpenCV's and scipy's morphology."""

import functools
import math

import cv2
import jax
import numpy as np
import pytest

from segjax.data.spec import VOID
from segjax.metrics import class_boundaries

K = 3


def counts(prediction, label, *, size=None, near=None, rim=None):
    """`class_boundaries.counts` of small arrays, by default with the radii of the image's size."""
    prediction, label = np.asarray(prediction, np.uint8), np.asarray(label, np.uint8)
    size = label.shape if size is None else size
    tolerance, width = class_boundaries.radii(size)
    near, rim = tolerance if near is None else near, width if rim is None else rim
    capacity = math.floor(near)
    fn = jax.jit(functools.partial(class_boundaries.counts, num_classes=K, capacity=capacity))
    found = fn(
        prediction, label, np.array(size), class_boundaries.disc(near, capacity), np.int32(rim)
    )
    return {key: np.asarray(value) for key, value in found.items()}


def halves(height: int, width: int, at: int) -> np.ndarray:
    """A label map with class 0 left of column `at` and class 1 from it on."""
    return np.broadcast_to((np.arange(width) >= at).astype(np.uint8), (height, width)).copy()


def test_a_shifted_boundary_matches_up_to_the_tolerance():
    label = halves(20, 40, 20)
    for shift, hits in ((0, 1), (1, 1), (3, 1), (4, 0)):
        found = counts(halves(20, 40, 20 + shift), label, near=3.5)["contour"]
        np.testing.assert_array_equal(found[:, 0], [20 * hits, 20, 20 * hits, 20])
        np.testing.assert_array_equal(found[:, 1], [20 * hits, 20, 20 * hits, 20])
        f1, by_class = class_boundaries.boundary_f1(found[None])
        assert f1 == hits
        np.testing.assert_array_equal(by_class, [hits, hits, np.nan])


def test_boundary_f1_averages_classes_then_images():
    # right, drawn, matched, true of two images; class 2 has no boundary in the first one's truth
    first = [[4, 0, 0], [8, 5, 6], [3, 0, 0], [4, 10, 0]]
    second = [[0, 0, 2], [0, 0, 2], [0, 0, 2], [0, 0, 2]]
    f1, by_class = class_boundaries.boundary_f1(np.array([first, second]))
    single = 2 * 0.5 * 0.75 / 1.25
    assert f1 == pytest.approx(((single + 0) / 2 + 1) / 2)
    np.testing.assert_allclose(by_class, [single, 0, 1])
    assert math.isnan(class_boundaries.boundary_f1(np.zeros((2, 4, K), int))[0])


def brute(prediction, label, near: float, rim: int):
    """All counts again, pixel by pixel."""
    predicted, label = np.where(label == VOID, VOID, prediction).astype(int), label.astype(int)
    height, width = label.shape

    def edges(labels):
        found = np.zeros(labels.shape, bool)
        for y, x in np.ndindex(*labels.shape):
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                v, u = y + dy, x + dx
                if 0 <= v < height and 0 <= u < width and labels[y, x] != VOID:
                    found[y, x] |= labels[v, u] not in (VOID, labels[y, x])
        return found

    def matched(own, other):
        mine, theirs = edges(own), edges(other)
        found = np.zeros(own.shape, bool)
        for y, x in np.argwhere(mine):
            same = np.argwhere(theirs & (other == own[y, x]))
            if len(same):
                found[y, x] = ((same - (y, x)) ** 2).sum(1).min() <= near**2
        return found

    def in_rim(labels):
        found = np.zeros(labels.shape, bool)
        for y, x in np.ndindex(*labels.shape):
            window = labels[max(0, y - rim) : y + rim + 1, max(0, x - rim) : x + rim + 1]
            others = ((window != labels[y, x]) & (window != VOID)).any()
            border = min(y, x, height - 1 - y, width - 1 - x) < rim
            found[y, x] = labels[y, x] != VOID and (others or border)
        return found

    def by_class(labels, mask):
        return [int((mask & (labels == k)).sum()) for k in range(K)]

    contour = [
        by_class(predicted, matched(predicted, label)),
        by_class(predicted, edges(predicted)),
        by_class(label, matched(label, predicted)),
        by_class(label, edges(label)),
    ]
    rims = in_rim(predicted), in_rim(label)
    both = rims[0] & rims[1] & (predicted == label)
    rim = [by_class(label, both), by_class(label, rims[1]), by_class(predicted, rims[0])]
    marked = np.zeros(label.shape, bool)
    for y, x in np.ndindex(*label.shape):
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            v, u = y + dy, x + dx
            if 0 <= v < height and 0 <= u < width:
                marked[y, x] |= label[v, u] != label[y, x]
    bands = []
    for band in class_boundaries.BANDS:
        r = band - 1
        here = np.zeros(label.shape, bool)
        for y, x in np.argwhere(marked):
            here[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1] = True
        here &= label != VOID
        right = here & (predicted == label)
        bands.append([by_class(label, right), by_class(label, here), by_class(predicted, here)])
    return {"contour": contour, "rim": rim, "bands": bands}


@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_those_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    shape = (23, 31)
    maps = rng.integers(0, K, (2, 6, 8), np.uint8).repeat(4, 1).repeat(4, 2)[:, :23, :31]
    label = np.where(rng.random(shape) < 0.03, rng.integers(0, K, shape), maps[0])
    label[4:9, 5:17] = VOID
    prediction = np.where(rng.random(shape) < 0.8, label % K, maps[1])
    found = counts(prediction, label, near=2.9, rim=3)
    for key, value in brute(prediction, label, 2.9, 3).items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_pixels_that_fill_up_the_canvas_do_not_count():
    rng = np.random.default_rng(5)
    label, prediction = rng.integers(0, K, (2, 12, 17), np.uint8)
    placed = np.full((2, 20, 24), VOID, np.uint8)
    placed[0, :12, :17], placed[1, :12, :17] = label, prediction
    placed[1, 12:] = 1
    small = counts(prediction, label, near=2, rim=2)
    large = counts(placed[1], placed[0], size=(12, 17), near=2, rim=2)
    for key, value in small.items():
        np.testing.assert_array_equal(large[key], value, err_msg=key)


def test_boundary_iou_of_squares():
    # A square of side n has a rim of n^2 - (n - 2 d)^2; one inside the other, by their overlap.
    label = np.zeros((60, 60), np.uint8)
    label[10:40, 10:40] = 1
    prediction = np.zeros_like(label)
    prediction[12:42, 10:40] = 1
    rim = counts(prediction, label, rim=4)["rim"]
    ring = 30**2 - 22**2
    assert rim[1, 1] == rim[2, 1] == ring
    overlap = 28 * 30 - 2 * (22 * 2) - 20 * 22  # of both squares, without the inner parts
    assert rim[0, 1] == overlap
    _, by_class = class_boundaries.boundary_iou(rim[None])
    assert by_class[1] == pytest.approx(overlap / (2 * ring - overlap))
    assert np.isnan(by_class[2])
    # The border of the image is a boundary, so the frame of a uniform image is a rim.
    whole = counts(np.zeros((30, 30)), np.zeros((30, 30)), rim=2)["rim"]
    assert whole[0, 0] == 30**2 - 26**2


def test_bands_grow_from_the_boundary_and_count_correct_pixels():
    label, prediction = halves(10, 100, 50), halves(10, 100, 53)
    bands = counts(prediction, label)["bands"]
    scores = class_boundaries.band_scores(bands[None])
    for width in class_boundaries.BANDS:
        wrong = min(3, width)
        assert scores[width]["pixel_accuracy"] == pytest.approx(1 - wrong / (2 * width))
    assert scores[1]["miou"] == pytest.approx((1 / 2 + 0) / 2)


def test_radii_are_shares_of_the_diagonal():
    near, rim = class_boundaries.radii((360, 480))
    assert near == pytest.approx(4.5)
    assert rim == 12
    assert class_boundaries.radii((3, 4)) == (pytest.approx(0.0375), 1)
    table = class_boundaries.disc(4.5, 4)
    steps = {tuple(step) for step in table.tolist()}
    assert (4, 2) in steps  # 20 <= 20.25
    assert (4, 3) not in steps


def patches(seed: int, shape=(97, 133)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, K, (9, 9), np.uint8)
    return coarse.repeat(13, 0).repeat(17, 1)[: shape[0], : shape[1]]


def test_rims_are_the_pixels_that_erosion_removes():
    label = patches(0)
    prediction = np.roll(label, (2, 3), (0, 1))
    found = counts(prediction, label)["rim"]
    width = class_boundaries.radii(label.shape)[1]
    square = np.ones((2 * width + 1,) * 2, np.uint8)
    for k in range(K):
        rims = []
        for labels in (label, prediction):
            mask = np.pad((labels == k).astype(np.uint8), width)
            inner = cv2.erode(mask, square)[width:-width, width:-width]
            rims.append((labels == k) & (inner == 0))
        assert found[:, k].tolist() == [(rims[0] & rims[1]).sum(), rims[0].sum(), rims[1].sum()]


@pytest.mark.parametrize("near", [0.7, 1.0, 4.5, 7.9])
def test_near_is_a_euclidean_distance(near):
    ndimage = pytest.importorskip("scipy.ndimage")
    label = patches(1)
    prediction = np.roll(patches(2), (2, 3), (0, 1))
    found = counts(prediction, label, near=near)["contour"]

    def outline(labels, k):
        mask = labels == k
        cross = ndimage.generate_binary_structure(2, 1)
        return mask & ~ndimage.binary_erosion(mask, cross, border_value=1)

    for k in range(K):
        drawn, true = outline(prediction, k), outline(label, k)
        to_true, to_drawn = (ndimage.distance_transform_edt(~x) for x in (true, drawn))
        expected = [(drawn & (to_true <= near)).sum(), drawn.sum(),
                    (true & (to_drawn <= near)).sum(), true.sum()]  # fmt: skip
        assert found[:, k].tolist() == expected
