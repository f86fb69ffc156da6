import jax.numpy as jnp
import numpy as np
import pytest

from segjax.errors import InputError
from segjax.models import resize
from segjax.models.features import Features
from segjax.models.resize import Resize

STRIDES = {"fine": 8, "coarse": 32}
SHIFTS = (
    {},
    {"fine": (2.5, 2.5), "coarse": (14.5, 14.5)},
    {"coarse": (-0.5, 7.5)},
    {"fine": (6.5, -1.5), "coarse": (2.5, 2.5)},
)


def make(shifts: dict[str, tuple[float, float]]) -> Features:
    return Features({}, STRIDES, shifts=shifts)


def centres(features: Features, stage: str, count: int, axis: int = 0) -> np.ndarray:
    """Image position of each cell's centre; pixel j covers [j, j + 1]."""
    stride = features.strides[stage]
    return stride * np.arange(count) + stride / 2 + features.shifts.get(stage, (0, 0))[axis]


@pytest.mark.parametrize("shifts", SHIFTS)
@pytest.mark.parametrize("fine", [None, "fine"])
def test_a_stage_is_resized_to_a_finer_grid_centre_on_centre(shifts, fine):
    """A linear ramp stays linear between the outermost centres and constant beyond them."""
    features = make(shifts)
    coarse = centres(features, "coarse", 4)
    count = 128 if fine is None else 16
    at = np.arange(count) + 0.5 if fine is None else centres(features, fine, count)
    matrix = features.upsampling("coarse", fine).matrix(4, count)
    expected = np.clip(at, coarse[0], coarse[-1])
    np.testing.assert_allclose(matrix.astype(np.float64) @ coarse, expected, atol=1e-4)
    assert (expected == at).sum() > count / 2


@pytest.mark.parametrize("shifts", SHIFTS)
def test_both_axes_are_resized_alike(shifts):
    features = make(shifts)
    rows, cols = features.upsampling("coarse", "fine").matrices((3, 4), (10, 16))
    y, x = centres(features, "coarse", 3), centres(features, "coarse", 4, axis=1)
    plane = 2 * y[:, None] + 3 * x
    got = resize.apply(jnp.asarray(plane, jnp.float32)[None, :, :, None], rows, cols)[0, :, :, 0]
    at_y, at_x = centres(features, "fine", 10), centres(features, "fine", 16, axis=1)
    expected = 2 * np.clip(at_y, y[0], y[-1])[:, None] + 3 * np.clip(at_x, x[0], x[-1])
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_without_shifts_the_resize_has_no_offset():
    features = make({})
    assert features.upsampling("coarse", "fine") == Resize("half_pixel", 4, (0, 0))
    assert features.upsampling("coarse") == Resize("half_pixel", 32, (0, 0))


def test_stages_with_equal_shifts_need_no_offset_between_them():
    features = Features({}, STRIDES, shifts={"fine": (3, 1), "coarse": (3, 1)})
    assert features.upsampling("coarse", "fine").offset == (0, 0)
    assert features.upsampling("coarse").offset == (-3, -1)


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_strides_that_begin_at_the_first_pixel_make_a_corner_aligned_zoom(stride):
    """As in DeepLab and PSPNet: n -> (n - 1) stride + 1; beyond the last centre, edges repeat."""
    shift = ((1 - stride) / 2,) * 2
    features = Features({}, {"top": stride}, shifts={"top": shift})
    n, more = 5, 3
    exact = (n - 1) * stride + 1
    rows = features.to_image("top", "centres").matrix(n, exact + more)
    np.testing.assert_allclose(rows[:exact], Resize("corners").matrix(n, exact), atol=1e-6)
    np.testing.assert_allclose(rows[exact:], np.eye(n)[-1:].repeat(more, axis=0), atol=1e-6)


def test_a_head_may_ask_for_another_convention():
    features = make({"coarse": (3, 3)})
    assert features.to_image("coarse", "corners") == Resize("corners")
    assert features.to_image("coarse", "half_pixel") == Resize("half_pixel")
    with pytest.raises(InputError, match="align: unknown 'left'; known: centres, corners, half"):
        features.to_image("coarse", "left")
