"""Counts of metrics add up over blocks of rows, images and batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import metrics
from segjax.data.spec import VOID
from segjax.metrics import metric as metrics_of
from segjax.metrics.metric import Pixels
from tests import tiny
from tests.metrics import made

EVERY = metrics.build(tiny.SPEC, class_weights=(1.0, 2.0, 0.5, 1.0, 3.0)) + (
    made.Sure(tiny.SPEC, above=0.5),
    made.Confident(tiny.SPEC),
)


def total(metric, pieces):
    """The summed counts of pieces of a batch, as an evaluation sums them."""
    added = {}
    for logits, label in pieces:
        counts = jax.jit(lambda x, y: metric.count(Pixels.of(x, y)))(logits, label)
        added = metrics_of.add(added, counts, by_image=metric.by_image)
    return added


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_counts_add_up_over_rows_and_over_images(metric):
    logits, label = made.scored()
    whole = total(metric, [(logits, label)])
    rows = total(metric, [(logits[:, a:b], label[:, a:b]) for a, b in ((0, 7), (7, 20), (20, 32))])
    images = total(metric, [(logits[i : i + 1], label[i : i + 1]) for i in range(3)])
    for parts in (rows, images):
        assert parts.keys() == whole.keys()
        for key, value in whole.items():
            assert value.dtype in (np.int64, np.float64)
            if value.dtype == np.int64:
                np.testing.assert_array_equal(parts[key], value)
            np.testing.assert_allclose(parts[key], value, rtol=1e-5)
    for key, score in metric.scores(whole).items():
        assert np.isfinite(score), key


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_without_labelled_pixels_counts_are_0_and_scores_nan(metric):
    logits, label = made.scored()
    nothing = total(metric, [(logits, np.full_like(label, VOID))])
    for key, value in metric.empty().items():
        assert value.shape == nothing[key].shape
        assert value.dtype == nothing[key].dtype
        np.testing.assert_array_equal(value, 0)
        np.testing.assert_array_equal(nothing[key], 0)
    assert all(np.isnan(score) for score in metric.scores(metric.empty()).values())
    assert metric.scores(metric.empty()).keys() == metric.scores(nothing).keys()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_pixels_are_float32_and_predict_the_first_largest_logit(dtype):
    logits = jnp.asarray([[[[0, 1, 1], [2, 0, 0]]]], dtype)
    pixels = Pixels.of(logits, jnp.asarray([[[1, VOID]]], jnp.uint8))
    assert pixels.logits.dtype == jnp.float32
    assert pixels.prediction.dtype == jnp.uint8
    np.testing.assert_array_equal(pixels.prediction, [[[1, 0]]])
    np.testing.assert_array_equal(pixels.valid, [[[True, False]]])
    expected = np.exp([1, 2]) / [1 + 2 * np.e, np.exp(2) + 2]
    np.testing.assert_allclose(pixels.confidence[0, 0], expected, rtol=1e-6)


def test_totals_are_exact_beyond_32_bits():
    huge = {"pixels": np.int32(2**31 - 1), "loss": np.float32(2**24)}
    one = {"pixels": np.int32(1), "loss": np.float32(1)}
    added = {}
    for counts in (huge, one, one):
        added = metrics_of.add(added, counts, by_image=False)
    assert added == {"pixels": 2**31 + 1, "loss": 2**24 + 2}
    by_image = {"pixels": np.full((4,), 2**30, np.int32)}
    assert metrics_of.add({}, by_image, by_image=True) == {"pixels": 2**32}


def test_numbers_are_json_and_absent_ones_are_marked():
    assert metrics_of.numbers({"a": np.float64(0.5), "b": np.nan}) == {"a": 0.5, "b": None}
    assert metrics_of.percent(np.nan) == "absent"
    assert metrics_of.percent(0.12345) == "12.35"
    found = metrics_of.by_class([0.5, np.nan, 1, 0, np.nan], tiny.SPEC)
    assert found == {"a": 0.5, "b": "absent", "c": 1.0, "d": 0.0, "e": "absent"}


def test_the_default_description_lists_the_scores():
    metric = made.Confident(tiny.SPEC)
    found = total(metric, [made.scored()])
    words, fields = metric.describe(found, {})
    assert words == f"confident {metric.scores(found)['confident']:.4f}"
    assert fields == {}
    assert metric.keep(found) == {}
