"""CIELAB against scikit-image, which computes in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.classical import color

skimage_color = pytest.importorskip("skimage.color")


def cube() -> np.ndarray:
    """Colours of the whole RGB cube, including its corners and many dark ones: uint8 [n, 1, 3]."""
    steps = np.r_[0:12, 12:256:9, 255].astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 1, 3)


def test_lab_of_bytes_is_scikit_images():
    np.testing.assert_allclose(
        jax.jit(color.srgb_to_lab)(cube()), skimage_color.rgb2lab(cube()), atol=1e-3
    )


def test_lab_of_floats_is_scikit_images():
    image = cube().astype(np.float32) / 255
    np.testing.assert_allclose(color.srgb_to_lab(image), skimage_color.rgb2lab(image), atol=1e-3)


def test_lab_takes_any_leading_axes():
    image = cube()[:24].reshape(2, 3, 2, 2, 3)
    lab = color.srgb_to_lab(jnp.asarray(image))
    assert lab.shape == image.shape
    assert lab.dtype == jnp.float32
    np.testing.assert_array_equal(lab[1, 2], color.srgb_to_lab(image[1, 2]))


def test_grey_has_no_chroma_and_white_is_100():
    grey = np.full((1, 3, 3), [[0], [119], [255]], np.uint8)
    lab = np.asarray(color.srgb_to_lab(grey))[0]
    np.testing.assert_allclose(lab[[0, 2], 0], [0, 100], atol=1e-3)
    assert np.abs(lab[:, 1:]).max() < 0.02
