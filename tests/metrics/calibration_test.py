import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import sharding
from segjax.metrics import calibration
from tests import tiny


def error(confidence, right, valid=None) -> float:
    confidence = jnp.asarray(confidence, jnp.float32)
    valid = jnp.ones(confidence.shape, bool) if valid is None else jnp.asarray(valid)
    counts = calibration.counts(confidence, jnp.asarray(right), valid)
    return calibration.expected_error(jax.device_get(counts))


def test_the_error_is_the_mean_distance_in_bins():
    # bins of 1/15: (0.6, 0.6667] holds two pixels, (0.9333, 1] two more
    gap = error([0.61, 0.65, 0.95, 0.99], [True, False, True, True])
    assert gap == pytest.approx((abs(1.26 - 1) + abs(1.94 - 2)) / 4, rel=1e-5)


def test_invalid_pixels_do_not_count_and_no_pixel_gives_nan():
    assert error([0.9, 0.2], [True, False], [True, False]) == pytest.approx(0.1, rel=1e-5)
    assert math.isnan(error([0.5], [True], [False]))


def test_calibrated_probabilities_have_no_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 200_000)
    right = rng.random(200_000) < confidence
    assert error(confidence, right) < 0.005
    assert error(confidence, rng.random(200_000) < confidence - 0.1) == pytest.approx(0.1, abs=0.01)


def test_a_calibrated_confidence_has_no_error_however_many_pixels():
    """Floats added one by one gave 0.027 of these 2^21 pixels, and stopped at 2^24."""
    confidence = np.full((4, 1 << 10, 1 << 9), 0.94, np.float32)
    right = np.broadcast_to(np.arange(512) % 50 < 47, confidence.shape)
    counts = calibration.counts(confidence, right, np.ones(right.shape, bool))
    expected = abs(0.94 - right.mean())
    assert calibration.expected_error(jax.device_get(counts)) == pytest.approx(expected, abs=1e-7)


def test_a_count_goes_on_beyond_2_24():
    right = np.ones((1 << 12, (1 << 12) + 3), bool)
    confidence = jnp.broadcast_to(jnp.float32(1), right.shape)
    counts = jax.device_get(jax.jit(calibration.counts)(confidence, right, right))
    assert counts["pixels"].sum() == counts["right"].sum() == right.size
    assert counts["confidence"].sum() == right.size


@pytest.mark.parametrize("width", [1, 255, 257, 1000])
def test_counts_are_those_of_float64_in_any_split(width):
    rng = np.random.default_rng(width)
    confidence = rng.random((5, 7, width)).astype(np.float32)
    right, valid = rng.random((2, 5, 7, width)) < 0.6
    counts = jax.jit(calibration.counts)
    whole = jax.device_get(counts(confidence, right, valid))
    rows = [counts(*(x[:, i : i + 1] for x in (confidence, right, valid))) for i in range(7)]
    for key in ("pixels", "right"):
        np.testing.assert_array_equal(sum(np.asarray(row[key]) for row in rows), whole[key])
    index = np.clip(np.ceil(confidence * np.float32(15)).astype(int) - 1, 0, 14)
    for k in range(15):
        chosen = valid & (index == k)
        assert whole["pixels"][k] == chosen.sum()
        assert whole["right"][k] == (chosen & right).sum()
        total = confidence[chosen].astype(np.float64).sum()
        assert whole["confidence"][k] == pytest.approx(total, rel=1e-6, abs=1e-7)


def test_counts_over_devices_and_strips_are_those_of_one():
    rng = np.random.default_rng(0)
    arrays = rng.random((4, 8, 300)).astype(np.float32), *(rng.random((2, 4, 8, 300)) < 0.6)
    place = sharding.batch_sharding(sharding.make_mesh(2, jax.devices()[:8]), "image")
    compiled = jax.jit(calibration.counts).lower(*jax.device_put(arrays, place)).compile()
    many, one = compiled(*jax.device_put(arrays, place)), calibration.counts(*arrays)
    tiny.assert_same_bits(many, one)
    assert "all-gather" not in compiled.as_text()


def test_a_confidence_of_nan_gives_nan_and_not_zero():
    assert math.isnan(error([0.9, math.nan], [True, True]))
    assert error([0.9, math.nan], [True, True], [True, False]) == pytest.approx(0.1, rel=1e-5)


def test_a_bin_contains_its_upper_end():
    counts = calibration.counts(jnp.array([1.0, 1 / 15, 0.0]), jnp.ones(3, bool), jnp.ones(3, bool))
    assert counts["pixels"][-1] == 1
    assert counts["pixels"][0] == 2
