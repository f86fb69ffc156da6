import math

import jax.numpy as jnp
import numpy as np
import pytest

from segjax.metrics import calibration


def error(confidence, right, valid=None) -> float:
    confidence = jnp.asarray(confidence, jnp.float32)
    valid = jnp.ones(confidence.shape, bool) if valid is None else jnp.asarray(valid)
    return calibration.expected_error(
        np.asarray(calibration.counts(confidence, jnp.asarray(right), valid))
    )


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


def test_a_bin_contains_its_upper_end():
    counts = np.asarray(
        calibration.counts(jnp.array([1.0, 1 / 15, 0.0]), jnp.ones(3, bool), jnp.ones(3, bool))
    )
    assert counts[0, -1] == 1
    assert counts[0, 0] == 2
