import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import resize
from segjax.models.features import Features
from segjax.models.resize import Resize

STRIDES = {"fine": 8, "coarse": 32}
SHIFTS = ({}, {"fine": 2.5, "coarse": 14.5}, {"coarse": -0.5}, {"fine": 6.5, "coarse": 2.5})


def make(shifts: dict[str, float]) -> Features:
    return Features({}, STRIDES, shifts=shifts)


def centres(features: Features, stage: str, count: int) -> np.ndarray:
    """Image position of each cell's centre; pixel j covers [j, j + 1]."""
    stride = features.strides[stage]
    return stride * np.arange(count) + stride / 2 + features.shifts.get(stage, 0)


@pytest.mark.parametrize("shifts", SHIFTS)
@pytest.mark.parametrize("fine", [None, "fine"])
def test_a_stage_comes_to_a_finer_grid_centre_on_centre(shifts, fine):
    """What is linear in the image stays so, between the outermost centres; beyond them it holds."""
    features = make(shifts)
    coarse = centres(features, "coarse", 4)
    count = 128 if fine is None else 16
    at = np.arange(count) + 0.5 if fine is None else centres(features, fine, count)
    matrix = features.upsampling("coarse", fine).matrix(4, count)
    expected = np.clip(at, coarse[0], coarse[-1])
    np.testing.assert_allclose(matrix.astype(np.float64) @ coarse, expected, atol=1e-4)
    assert (expected == at).sum() > count / 2


@pytest.mark.parametrize("shifts", SHIFTS)
def test_both_axes_are_brought_up_alike(shifts):
    features = make(shifts)
    how = features.upsampling("coarse", "fine")
    rows, cols = how.matrix(3, 10), how.matrix(4, 16)
    y, x = centres(features, "coarse", 3), centres(features, "coarse", 4)
    plane = 2 * y[:, None] + 3 * x
    got = resize.apply(jnp.asarray(plane, jnp.float32)[None, :, :, None], rows, cols)[0, :, :, 0]
    at_y, at_x = centres(features, "fine", 10), centres(features, "fine", 16)
    expected = 2 * np.clip(at_y, y[0], y[-1])[:, None] + 3 * np.clip(at_x, x[0], x[-1])
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_without_shifts_it_is_the_plain_resize():
    features = make({})
    assert features.upsampling("coarse", "fine") == Resize("half_pixel", 4)
    assert features.upsampling("coarse") == Resize("half_pixel", 32)


def test_stages_that_are_moved_alike_need_no_offset_between_them():
    features = Features({}, STRIDES, shifts={"fine": 3.0, "coarse": 3.0})
    assert features.upsampling("coarse", "fine").offset == 0
    assert features.upsampling("coarse").offset == -3
