import numpy as np
import pytest

from segjax.metrics import region_boundaries


def step_at(column: int, height: int = 6, width: int = 40) -> np.ndarray:
    """A map with region 0 left of the column and region 1 from it on."""
    return np.tile((np.arange(width) >= column).astype(np.int32), (height, 1))


@pytest.mark.parametrize("disc", [False, True])
@pytest.mark.parametrize("radius", [0, 1, 2, 5, 30])
def test_near_pixels_are_those_within_the_distance(radius, disc):
    rng = np.random.default_rng(radius)
    mask = rng.random((13, 17)) < 0.02
    ys, xs = np.nonzero(mask)
    y, x = np.mgrid[:13, :17]
    down, right = np.abs(y[..., None] - ys), np.abs(x[..., None] - xs)
    distance = np.hypot(down, right) if disc else np.maximum(down, right)
    expected = (distance <= radius).any(axis=-1)
    np.testing.assert_array_equal(region_boundaries.within(mask, radius, disc=disc), expected)


def test_recall_is_full_up_to_the_window_and_none_beyond():
    truth = step_at(20)  # boundary pixels in columns 19 and 20
    for shift, share in ((0, (1, 1)), (1, (1, 1)), (2, (0.5, 1)), (3, (0, 0.5)), (4, (0, 0))):
        counts = region_boundaries.recall_counts(step_at(20 + shift), [truth], radii=(1, 2))
        assert tuple(matched[0] / total[0] for matched, total in counts) == share


def test_a_human_without_boundaries_does_not_enter_the_mean():
    truths = [step_at(20), np.zeros((6, 40), np.int32), step_at(20)]
    ((matched, total),) = region_boundaries.recall_counts(step_at(20), truths, radii=(1,))
    np.testing.assert_array_equal(total, [12, 0, 12])
    assert region_boundaries.mean_ratio(matched, total) == 1
    assert np.isnan(region_boundaries.mean_ratio(np.zeros(1), np.zeros(1)))


def test_boundary_counts_by_hand():
    drawn = step_at(20)
    drawn[:, 30:] = 2  # a second boundary, which no human drew
    counts = region_boundaries.f_counts(
        drawn, [step_at(21), step_at(5)], tolerance=1.5 / np.hypot(6, 40)
    )
    assert counts == {"right": 6, "drawn": 12, "found": 6, "true": 12}
    assert region_boundaries.f_measure(counts) == {"precision": 0.5, "recall": 0.5, "f": 0.5}


def test_the_tolerance_is_a_share_of_the_diagonal():
    for shift, right in ((3, 6), (4, 0)):
        counts = region_boundaries.f_counts(
            step_at(20 + shift), [step_at(20)], tolerance=3.2 / np.hypot(6, 40)
        )
        assert counts["right"] == counts["found"] == right


def test_pixels_without_truth_are_never_boundary_pixels():
    truth = step_at(20)
    truth[:3] = -1
    counts = region_boundaries.f_counts(step_at(20), [truth], tolerance=0.001)
    assert counts["true"] == 3
    assert counts["found"] == 3


def test_scores_without_drawn_pixels_are_nan():
    empty = region_boundaries.f_counts(np.zeros((5, 5), int), [np.zeros((5, 5), int)])
    scores = region_boundaries.f_measure(empty)
    assert np.isnan(scores["precision"])
    assert np.isnan(scores["recall"])
    missed = region_boundaries.f_measure({"right": 0, "drawn": 4, "found": 0, "true": 9})
    assert missed == {"precision": 0.0, "recall": 0.0, "f": 0.0}
