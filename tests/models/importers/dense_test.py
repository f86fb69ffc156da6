import itertools

import jax
import numpy as np
import pytest

from segjax.models.importers import dense

CHANNELS, OUT = 3, 4


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def flat(x: np.ndarray, order: str) -> np.ndarray:
    """[B, k, k, C] -> [B, C k k] as a library flattens its maps."""
    return (x.transpose(0, 3, 1, 2) if order == "chw" else x).reshape(x.shape[0], -1)


def turned(weight: np.ndarray, order: str, size: int) -> np.ndarray:
    return (dense.chw_to_conv if order == "chw" else dense.hwc_to_conv)(weight, size)


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """[B, k, k, C], [k, k, C, K] -> [B, K]."""
    out = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert out.dtype == np.float64
    assert out.shape == (x.shape[0], 1, 1, OUT)
    return np.asarray(out)[:, 0, 0]


@pytest.mark.parametrize("size", [7, 1])
@pytest.mark.parametrize(
    ("flattened", "read_as"), list(itertools.product(("chw", "hwc"), repeat=2))
)
def test_a_convolution_equals_the_dense_layer_only_in_the_right_order(
    double, size, flattened, read_as
):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, size, size, CHANNELS))
    inputs = size * size * CHANNELS
    weight = rng.normal(size=(OUT, inputs) if flattened == "chw" else (inputs, OUT))
    expected = flat(x, flattened) @ (weight.T if flattened == "chw" else weight)
    # A layer that is read in the other library's order still has to have its shape.
    given = weight if flattened == read_as else weight.T
    got = convolve(x, turned(given, read_as, size))
    if flattened == read_as or size == 1:
        np.testing.assert_allclose(got, expected, atol=1e-12)
    else:
        assert np.abs(got - expected).max() > 1


def test_kernels_are_transposed_axis_by_axis():
    k, i, j, c = np.meshgrid(*map(np.arange, (4, 2, 2, 3)), indexing="ij")
    numbers = 1000 * k + 100 * i + 10 * j + c  # [K, k, k, C]
    for kernel in (
        dense.from_ohwi(numbers),
        dense.from_oihw(numbers.transpose(0, 3, 1, 2)),
        dense.chw_to_conv(numbers.transpose(0, 3, 1, 2), 2),
        dense.chw_to_conv(numbers.transpose(0, 3, 1, 2).reshape(4, -1), 2),
    ):
        assert kernel.shape == (2, 2, 3, 4)
        assert kernel[1, 0, 2, 3] == 3102


@pytest.mark.parametrize("shape", [(), (5,), (5, 6), (2, 3, 4), (2, 3, 4, 5, 6)])
def test_arrays_of_unexpected_shape_are_returned_unchanged(shape):
    array = np.zeros(shape)
    for result in (
        dense.from_oihw(array),
        dense.from_ohwi(array),
        dense.chw_to_conv(array, 7),
        dense.hwc_to_conv(array, 7),
    ):
        assert result is array
