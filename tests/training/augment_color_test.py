"""Brightness, contrast, saturation and hue."""

import numpy as np

from tests.training.augment_test import plain, run


def test_brightness_adds_one_number_within_its_range():
    image, _ = run(plain((100, 120, 140), 100), brightness=0.2)
    added = image - np.array([100, 120, 140], np.float32)
    np.testing.assert_allclose(added, added[:, :1, :1, :1] + 0 * added, atol=1e-3)
    added = added[:, 0, 0, 0] / 255
    assert -0.2 <= added.min() < -0.17
    assert 0.17 < added.max() <= 0.2
    bright, _ = run(plain((10, 120, 250), 20), brightness=1.0)
    assert bright.min() == 0
    assert bright.max() == 255


def test_contrast_stretches_about_the_middle_grey():
    image, _ = run(plain((100, 140, 127), 100), contrast=0.4)
    factor = (image[:, 0, 0, 1] - image[:, 0, 0, 0]) / 40
    np.testing.assert_allclose(image[:, 0, 0, 0], 127.5 + factor * (100 - 127.5), atol=1e-3)
    assert 0.6 <= factor.min() < 0.65
    assert 1.35 < factor.max() <= 1.4


LUMA = np.array([0.299, 0.587, 0.114])


def test_saturation_stretches_about_the_grey_of_the_same_luma():
    color = np.array([100, 140, 120])
    image, _ = run(plain(tuple(color), 100), saturation=0.4)
    got, grey = image[:, 0, 0], LUMA @ color
    factors = (got - grey) / (color - grey)
    np.testing.assert_allclose(factors, factors[:, :1] + 0 * factors, atol=1e-3)
    assert 0.6 <= factors.min() < 0.65
    assert 1.35 < factors.max() <= 1.4


def test_hue_turns_about_the_grey_axis():
    color = np.array([100, 140, 120])
    image, _ = run(plain(tuple(color), 100), hue=30.0)
    got = image[:, 0, 0]
    np.testing.assert_allclose(got @ LUMA, LUMA @ color, atol=0.1)
    to_iq = np.array([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    before, after = to_iq @ color, got @ to_iq.T
    np.testing.assert_allclose(np.hypot(*after.T), np.hypot(*before), rtol=2e-3)
    turn = np.degrees(np.arctan2(*after.T[::-1]) - np.arctan2(before[1], before[0]))
    turn = (turn + 180) % 360 - 180
    assert -30.1 < turn.min() < -27
    assert 27 < turn.max() < 30.1


def test_grey_stays_grey_under_hue_and_saturation():
    image, _ = run(plain((77, 77, 77), 50), hue=90.0, saturation=0.9)
    np.testing.assert_allclose(image, 77, atol=0.01)
