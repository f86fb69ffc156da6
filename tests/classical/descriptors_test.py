"""Pixel descriptors against formulas and scipy's filters."""

import functools

import jax
import numpy as np
import pytest

from segjax.classical import descriptors
from segjax.errors import InputError
from tests import tiny

SIZE = (19, 26)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return pytest.importorskip("skimage.data").coffee()[100 : 100 + SIZE[0], 200 : 200 + SIZE[1]]


def test_rgb_is_the_image_and_lab_is_that_of_scikit_image(photograph):
    color = pytest.importorskip("skimage.color")
    rgb = descriptors.describe_pixels(photograph, "rgb")
    np.testing.assert_array_equal(rgb, np.moveaxis(photograph, -1, 0).astype(np.float32))
    lab = descriptors.describe_pixels(photograph, "lab")
    np.testing.assert_allclose(lab, np.moveaxis(color.rgb2lab(photograph), -1, 0), atol=2e-3)


def test_position_scales_the_longer_side(photograph):
    got = np.asarray(descriptors.describe_pixels(photograph, "lab_xy", position=52.0))
    np.testing.assert_allclose(got[:3], descriptors.describe_pixels(photograph, "lab"), rtol=1e-6)
    y, x = np.indices(SIZE)
    np.testing.assert_allclose(got[3:], [2.0 * y, 2.0 * x], rtol=1e-6)


@pytest.mark.parametrize("kind", descriptors.KINDS)
def test_every_kind_has_its_number_of_channels_at_any_size(kind):
    compiled = jax.jit(lambda image: descriptors.describe_pixels(image, kind))
    for size in ((1, 1), (1, 7), (5, 3)):
        got = compiled(np.full((*size, 3), 90, np.uint8))
        assert got.shape == (descriptors.count(kind), *size)
        assert got.dtype == np.float32
        assert np.all(np.isfinite(got))


def scipy_derivative(plane: np.ndarray, sigma: float, order: tuple[int, int]) -> np.ndarray:
    """scipy's derivative, without the response of its truncated filter to a flat image."""
    ndimage = pytest.importorskip("scipy.ndimage")

    def filtered(values, order):
        return ndimage.gaussian_filter(values, sigma, order, mode="nearest", truncate=3.0)

    flat = filtered(np.ones_like(plane), order)
    return filtered(plane, order) - flat * filtered(plane, [each % 2 for each in order])


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 2), (1, 1), (2, 0)])
def test_derivatives_are_those_of_scipy(photograph, order):
    plane = photograph[..., 1].astype(np.float32)
    sigma = 2.0
    expected = scipy_derivative(plane, sigma, order)
    taps = [descriptors.gaussian_taps(sigma, each) for each in order]
    got = descriptors.convolve(descriptors.convolve(plane, taps[0], axis=0), taps[1], axis=1)
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_energy_follows_the_formula_with_scipys_filters(photograph):
    ndimage = pytest.importorskip("scipy.ndimage")
    plane = photograph[..., 1].astype(np.float64)
    expected = []
    for sigma in (1.0, 2.0):

        def derivative(*order, sigma=sigma):
            return sigma ** sum(order) * scipy_derivative(plane, sigma, order)

        dx, dy = derivative(0, 1), derivative(1, 0)
        dxx, dxy, dyy = derivative(0, 2), derivative(1, 1), derivative(2, 0)
        squares = [
            (np.cos(a) * dx + np.sin(a) * dy) ** 2
            + (np.cos(a) ** 2 * dxx + np.sin(2 * a) * dxy + np.sin(a) ** 2 * dyy) ** 2
            for a in np.pi * np.arange(4) / 4
        ]
        squares.append((dxx + dyy) ** 2)
        expected += [
            np.sqrt(ndimage.gaussian_filter(each, 2 * sigma, mode="nearest", truncate=3.0))
            for each in squares
        ]
    got = descriptors.filter_energy(plane.astype(np.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_energy_is_largest_across_the_stripes():
    x = np.arange(40)
    stripes = np.tile(50 + 20 * np.sin(x), (40, 1)).astype(np.float32)  # vary along x
    upright = np.asarray(descriptors.filter_energy(stripes)[:4, 20, 20])
    lying = np.asarray(descriptors.filter_energy(stripes.T)[:4, 20, 20])
    assert upright.argmax() == 0  # the derivative along x
    assert lying.argmax() == 2
    assert upright[0] > 10 * upright[2]


def test_texture_weights_only_the_energy_and_a_flat_image_has_none(photograph):
    single = np.asarray(descriptors.describe_pixels(photograph, "texture", texture=1.0))
    triple = np.asarray(descriptors.describe_pixels(photograph, "texture", texture=3.0))
    np.testing.assert_allclose(triple[:3], single[:3], rtol=1e-6)
    np.testing.assert_allclose(triple[3:], 3 * single[3:], rtol=1e-5)
    flat = descriptors.describe_pixels(np.full((*SIZE, 3), 128, np.uint8), "texture")
    np.testing.assert_allclose(flat[3:], 0, atol=1e-3)


@pytest.mark.parametrize("kind", descriptors.KINDS)
def test_a_batch_gives_exactly_the_results_of_single_images(photograph, kind):
    images = np.stack([photograph, photograph[::-1], photograph[:, ::-1]])
    describe = functools.partial(descriptors.describe_pixels, kind=kind)
    # Compiled with the users' settings; those of the tests round a batch of textures differently.
    single, batch = (
        jax.jit(f, compiler_options=tiny.OPTIMISED) for f in (describe, jax.vmap(describe))
    )
    np.testing.assert_array_equal(batch(images), [single(image) for image in images])


def test_an_unknown_kind_is_refused_naming_the_allowed_ones(photograph):
    with pytest.raises(InputError, match="features is 'luv'; rgb, lab, lab_xy, texture"):
        descriptors.describe_pixels(photograph, "luv")
