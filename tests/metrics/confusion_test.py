import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data.spec import VOID
from segjax.metrics import confusion


def test_pixels_are_counted_by_truth_and_prediction_without_void():
    label = jnp.array([[0, 0, 1, 2], [2, 2, VOID, VOID]], jnp.uint8)
    pred = jnp.array([[0, 1, 1, 0], [2, 2, 1, 0]], jnp.uint8)
    expected = [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    got = confusion.count(pred, label, 3)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("classes", [2, 40, 254])
def test_counts_are_those_of_numpy_for_any_number_of_classes(classes):
    rng = np.random.default_rng(0)
    label = rng.integers(0, classes, (2, 30, 40)).astype(np.uint8)
    label[rng.random(label.shape) < 0.2] = VOID
    pred = rng.integers(0, classes, label.shape).astype(np.uint8)
    expected = np.zeros((classes, classes), int)
    valid = label != VOID
    np.add.at(expected, (label[valid], pred[valid]), 1)
    got = jax.jit(confusion.count, static_argnums=2)(pred, label, classes)
    np.testing.assert_array_equal(got, expected)


def test_scores_of_three_classes_by_hand():
    report = confusion.report(np.array([[4, 1, 0], [2, 6, 0], [1, 2, 4]]))
    np.testing.assert_allclose(report.iou, [4 / 8, 6 / 11, 4 / 7])
    np.testing.assert_allclose(report.accuracy, [4 / 5, 6 / 8, 4 / 7])
    assert report.classes_counted == 3
    scalars = report.scalars()
    assert scalars.keys() == {"miou", "pixel_accuracy", "mean_accuracy", "fwiou"}
    assert scalars["pixel_accuracy"] == pytest.approx(14 / 20)
    assert scalars["mean_accuracy"] == pytest.approx((4 / 5 + 6 / 8 + 4 / 7) / 3)
    assert scalars["miou"] == pytest.approx((4 / 8 + 6 / 11 + 4 / 7) / 3)
    assert scalars["fwiou"] == pytest.approx((5 * 4 / 8 + 8 * 6 / 11 + 7 * 4 / 7) / 20)


def test_an_absent_class_counts_in_no_mean():
    # Class 1 is absent from both; class 2 is predicted but absent from the truth.
    report = confusion.report(np.array([[8, 0, 2], [0, 0, 0], [0, 0, 0]]))
    np.testing.assert_array_equal(np.isnan(report.iou), [False, True, False])
    np.testing.assert_array_equal(np.isnan(report.accuracy), [False, True, True])
    assert report.classes_counted == 2
    assert report.miou == pytest.approx((0.8 + 0) / 2)
    assert report.mean_accuracy == pytest.approx(0.8)
    assert report.fwiou == pytest.approx(0.8)


def test_nothing_counted_is_nan_and_not_zero():
    report = confusion.report(np.zeros((3, 3), np.int64))
    assert report.classes_counted == 0
    assert all(np.isnan(value) for value in report.scalars().values())


def test_counts_stay_exact_beyond_the_precision_of_floats():
    big = 2**53  # big + 1 has no exact float64
    report = confusion.report(np.array([[big, 1], [0, big + 1]]))
    assert report.confusion.dtype == np.int64
    assert report.confusion.sum() == 2 * big + 2
    assert report.confusion[1, 1] - report.confusion[0, 0] == 1
    assert report.accuracy[1] == 1
    assert report.iou[0] == pytest.approx(1)
