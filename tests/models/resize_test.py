import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import resize
from segjax.models.features import Scores
from segjax.models.resize import Resize
from tests import tiny


def transposed_by_loops(x: np.ndarray, factor: int) -> np.ndarray:
    """Transposed convolution as Caffe defines it: kernel 2f, stride f, no padding, [h, w]."""
    size = 2 * factor
    full = np.zeros(((x.shape[0] - 1) * factor + size, (x.shape[1] - 1) * factor + size))
    centre = factor - 0.5
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            for a in range(size):
                for b in range(size):
                    weight = (1 - abs(a - centre) / factor) * (1 - abs(b - centre) / factor)
                    full[i * factor + a, j * factor + b] += weight * x[i, j]
    return full


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((7, 9), (13, 20)),
        ((6, 8), (48, 64)),
        ((16, 24), (5, 7)),
        ((16, 24), (8, 12)),
        ((5, 6), (5, 6)),
        ((1, 3), (4, 1)),
    ],
)
def test_half_pixel_equals_opencv_s_linear_resize(before, after):
    image = np.random.default_rng(0).normal(size=(*before, 2)).astype(np.float32)
    how = Resize("half_pixel")
    rows, cols = how.matrix(before[0], after[0]), how.matrix(before[1], after[1])
    expected = cv2.resize(image, after[::-1], interpolation=cv2.INTER_LINEAR)
    got = resize.apply(jnp.asarray(image)[None], rows, cols)[0]
    np.testing.assert_allclose(got, expected.reshape(*after, 2), atol=1e-5)


@pytest.mark.parametrize(("size_in", "size_out", "factor"), [(3, 23, 8), (4, 7, 2), (9, 4, None)])
def test_rows_of_half_pixel_are_averages(size_in, size_out, factor):
    matrix = Resize("half_pixel", factor).matrix(size_in, size_out)
    assert matrix.shape == (size_out, size_in)
    assert matrix.dtype == np.float32
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)


def test_a_given_factor_also_holds_for_a_cropped_output():
    whole, cropped = Resize("half_pixel").matrix(3, 24), Resize("half_pixel", 8).matrix(3, 19)
    np.testing.assert_array_equal(cropped, whole[:19])
    moved = Resize("half_pixel", 8, offset=5).matrix(3, 19)
    np.testing.assert_array_equal(moved, whole[5:])


@pytest.mark.parametrize("factor", [1, 2, 8, None])
@pytest.mark.parametrize("offset", [-14.5, -0.5, 0.25, 3.75])
def test_an_offset_of_any_number_moves_the_grid(factor, offset):
    """Pixel j reads the input at (j + offset + 0.5) / factor - 0.5, linear between its cells."""
    values = np.random.default_rng(0).normal(size=5)
    size_out = 5 * (factor or 3)
    got = Resize("half_pixel", factor, offset).matrix(5, size_out) @ values
    at = (np.arange(size_out) + offset + 0.5) / (factor or 3) - 0.5
    np.testing.assert_allclose(got, np.interp(at, np.arange(5), values), atol=1e-5)


@pytest.mark.parametrize(
    ("size_in", "size_out"), [(5, 33), (4, 30), (9, 4), (3, 3), (1, 6), (6, 1)]
)
def test_corners_align_the_first_and_the_last_pixel(size_in, size_out):
    """Output pixel j reads the input at j (n - 1) / (m - 1): PyTorch's align_corners."""
    values = np.random.default_rng(0).normal(size=size_in)
    got = Resize("corners").matrix(size_in, size_out) @ values
    at = np.linspace(0, size_in - 1, size_out) if size_out > 1 else np.zeros(1)
    np.testing.assert_allclose(got, np.interp(at, np.arange(size_in), values), atol=1e-6)


def test_corners_with_a_factor_crop_caffe_s_zoom_or_repeat_its_end():
    zoomed = Resize("corners").matrix(4, 25)
    np.testing.assert_allclose(Resize("corners", 8).matrix(4, 20), zoomed[:20], atol=1e-6)
    held = np.concatenate([zoomed, zoomed[-1:], zoomed[-1:]])
    np.testing.assert_allclose(Resize("corners", 8).matrix(4, 27), held, atol=1e-6)


def test_each_axis_may_have_another_offset():
    rows, cols = Resize("half_pixel", 2, (1, -3)).matrices((4, 5), (8, 9))
    np.testing.assert_array_equal(rows, Resize("half_pixel", 2, 1).matrix(4, 8))
    np.testing.assert_array_equal(cols, Resize("half_pixel", 2, -3).matrix(5, 9))


def test_a_transposed_convolution_crops_whole_pixels():
    with pytest.raises(ValueError, match="whole pixels, got offset 0.5"):
        Resize("transposed", 2, 0.5)
    assert Resize("transposed", 2, 5.0).matrix(3, 2).shape == (2, 3)


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_transposed_equals_the_transposed_convolution_cropped_at_the_offset(factor):
    x = np.random.default_rng(1).normal(size=(3, 4))
    full = transposed_by_loops(x, factor)
    for offset in (0, 1, 5):
        size = (full.shape[0] - offset, full.shape[1] - offset - 1)
        how = Resize("transposed", factor, offset)
        got = how.matrix(3, size[0]) @ x @ how.matrix(4, size[1]).T
        expected = full[offset : offset + size[0], offset : offset + size[1]]
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_transposed_is_zero_beyond_its_input():
    assert not Resize("transposed", 2).matrix(3, 12)[8:].any()


def test_the_adjoint_of_transposed_is_a_strided_convolution():
    factor, offset, size = 4, 3, 17
    matrix = Resize("transposed", factor, offset).matrix(5, size)
    y = np.random.default_rng(2).normal(size=size).astype(np.float32)
    back = (5 - 1) * factor + 2 * factor - offset - size
    padded = np.pad(y, (offset, back))
    kernel = resize.bilinear_kernel(2 * factor).astype(np.float32)
    expected = jax.lax.conv_general_dilated(
        padded[None, None], kernel[None, None], (factor,), "VALID"
    )[0, 0]
    np.testing.assert_allclose(matrix.T @ y, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(4, [0.25, 0.75, 0.75, 0.25]), (3, [0.5, 1, 0.5]), (2, [0.5, 0.5]), (1, [1])],
)
def test_the_bilinear_kernel_equals_the_release_s(size, expected):
    np.testing.assert_allclose(resize.bilinear_kernel(size), expected)


def test_resized_scores_are_float32_in_full_precision():
    x = jnp.full((1, 3, 4, 2), 0.1, jnp.bfloat16)
    rows, cols = np.eye(3, dtype=np.float32), np.ones((5, 4), np.float32)
    assert resize.apply(x, rows, cols).dtype == jnp.float32
    assert not tiny.products_below_full_precision(lambda x: resize.apply(x, rows, cols), x)


def test_two_resizes_become_one_matrix():
    values = jnp.asarray(np.random.default_rng(3).normal(size=(1, 3, 4, 2)), jnp.float32)
    scores = Scores(values, Resize("half_pixel", 8))
    seen, size = (21, 30), (42, 61)
    at_network = resize.apply(values, *scores.matrices(seen))[0]
    expected = cv2.resize(np.asarray(at_network), size[::-1], interpolation=cv2.INTER_LINEAR)
    got = resize.apply(values, *scores.matrices(size, seen))[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="half_pixel, corners, transposed"):
        Resize("align_corners")
    with pytest.raises(ValueError, match="factor"):
        Resize("transposed")


@pytest.mark.parametrize(
    ("how", "size_in", "size_out", "expected"),
    [
        (Resize("half_pixel"), 4, 32, [4, 12, 20, 28]),
        (Resize("half_pixel", 8, -3.5), 4, 25, [7, 15, 23, 24]),
        (Resize("half_pixel", 8, 3.5), 4, 25, [0, 8, 16, 24]),  # DeepLab's: pure sub-sampling
        (Resize("corners"), 4, 25, [0, 8, 16, 24]),
        (Resize("corners", 8), 4, 23, [0, 8, 16, 22]),
        (Resize("transposed", 4), 3, 16, [4, 8, 12]),
        (Resize("corners"), 1, 9, [0]),
        (Resize("half_pixel"), 1, 1, [0]),
    ],
)
def test_every_score_has_the_pixel_nearest_to_it(how, size_in, size_out, expected):
    np.testing.assert_array_equal(how.centres(size_in, size_out), expected)
