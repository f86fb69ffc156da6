import math

import numpy as np
import pytest

from segjax.metrics import partitions


def halves(height: int = 4, width: int = 8) -> np.ndarray:
    """A map with region 0 in the left half and region 1 in the right."""
    return np.tile((np.arange(width) >= width // 2).astype(np.int32), (height, 1))


def test_a_perfect_segmentation_has_perfect_scores():
    truth = halves()
    scores = partitions.partition_scores(truth, [truth, 5 - truth])
    assert scores == {"covering": 1.0, "pri": 1.0, "vi": 0.0, "regions": 2}


def test_one_region_for_two_halves_by_hand():
    truth, single = halves(), np.zeros((4, 8), np.int32)
    scores = partitions.partition_scores(single, [truth])
    assert scores["covering"] == pytest.approx(0.5)
    # 16 * 16 of the 32 * 31 / 2 pairs lie across the halves and are joined wrongly.
    assert scores["pri"] == pytest.approx(1 - 256 / 496)
    assert scores["vi"] == pytest.approx(1.0)


def test_independent_halves_share_no_information():
    truth = halves(8, 8)
    scores = partitions.partition_scores(truth.T, [truth])
    assert scores["vi"] == pytest.approx(2.0)
    assert scores["covering"] == pytest.approx(1 / 3)


def test_several_humans_give_the_mean_of_their_scores():
    truth, other = halves(), np.zeros((4, 8), np.int32)
    both = partitions.partition_scores(truth, [truth, other])
    alone = [partitions.partition_scores(truth, [human]) for human in (truth, other)]
    for key in ("covering", "pri", "vi"):
        assert both[key] == pytest.approx((alone[0][key] + alone[1][key]) / 2)


def test_leaks_count_by_their_smaller_side():
    # One superpixel of 5 columns over the halves of 4: it leaks 1 of 5 columns.
    labels = np.tile(np.array([0, 0, 0, 0, 0, 1, 1, 1], np.int32), (4, 1))
    counts = partitions.overlaps(labels, [halves()])[0]
    np.testing.assert_array_equal(counts, [[16, 4], [0, 12]])
    # min(|S in G|, |S out of G|) is 4 for either segment that the first overlaps.
    assert partitions.undersegmentation_error(counts) == pytest.approx(8 / 32)
    assert partitions.achievable_accuracy(counts) == pytest.approx(28 / 32)


def test_pixels_without_truth_do_not_count():
    truth = halves()
    truth[:, 0] = -1
    labels = halves()
    labels[:, 0] = 2  # the prediction there does not matter
    scores = partitions.partition_scores(labels, [truth])
    assert scores["covering"] == 1
    assert scores["vi"] == 0
    assert partitions.overlaps(labels, [truth])[0].sum() == 28


def test_variation_and_information_against_scikit_image_and_a_loop():
    rng = np.random.default_rng(0)
    metrics = pytest.importorskip("skimage.metrics")
    a, b = rng.integers(0, 7, (13, 11)), rng.integers(0, 5, (13, 11))
    counts = partitions.overlaps(a, [b])[0]
    split, merge = metrics.variation_of_information(b, a)
    assert partitions.variation_of_information(counts) == pytest.approx(split + merge)
    same_a = a.ravel()[:, None] == a.ravel()
    same_b = b.ravel()[:, None] == b.ravel()
    upper = np.triu_indices(a.size, 1)
    assert partitions.rand_index(counts) == pytest.approx((same_a == same_b)[upper].mean())
    best = [
        (b == g).sum() * max(((a == s) & (b == g)).sum() / ((a == s) | (b == g)).sum()
                             for s in range(7))
        for g in range(5)
    ]  # fmt: skip
    assert partitions.covering(counts) == pytest.approx(sum(best) / a.size)


def test_explained_variation_of_two_flat_halves():
    image = np.repeat((halves() * 200)[..., None], 3, axis=2).astype(np.uint8)
    assert partitions.explained_variation(image, halves()) == pytest.approx(1)
    assert partitions.explained_variation(image, np.zeros((4, 8), int)) == pytest.approx(0)
    assert partitions.explained_variation(np.zeros((4, 8, 3), np.uint8), halves()) == 1


def test_compactness_of_squares_and_of_a_line():
    assert partitions.compactness(np.zeros((6, 6), int)) == pytest.approx(math.pi / 4)
    assert partitions.compactness(np.zeros((1, 9), int)) == pytest.approx(4 * math.pi * 9 / 20**2)
    squares = np.kron(np.arange(4).reshape(2, 2), np.ones((5, 5), int))
    assert partitions.compactness(squares) == pytest.approx(math.pi / 4)


def test_pieces_are_counted_once_each():
    assert partitions.count_pieces(halves()) == 2
    diagonal = np.eye(4, dtype=int)  # four pieces on it and one on each side
    assert partitions.count_pieces(diagonal) == 6
    assert partitions.count_pieces(np.zeros((1, 1), int)) == 1
    assert partitions.count_pieces(np.array([[0, 1, 0, 1]])) == 4


def test_a_grid_finer_than_the_truth_has_perfect_superpixel_scores_except_compactness():
    image = np.repeat((halves() * 200)[..., None], 3, axis=2).astype(np.uint8)
    columns = np.tile(np.arange(8) // 2, (4, 1))
    scores = partitions.superpixel_scores(image, columns, [halves(), halves()])
    assert [scores[key] for key in ("rec1", "rec2", "ue", "asa", "ev")] == [1, 1, 0, 1, 1]
    assert (scores["regions"], scores["pieces"]) == (4, 4)
    assert scores["co"] == pytest.approx(4 * math.pi * 8 / 12**2)
