"""The idea of FCN: a classifier on patches is a convolution, and upsampling is its adjoint.

Long, Shelhamer, Darrell 2015, sections 3.1 to 3.3.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.records.fcn_patchwise import forms
from segjax.models import functional, resize
from segjax.models.deconvolution import LearnedUp2
from tests import tiny

K = 3
NET = {"widths": (4, 5, 6), "depth": 1, "fc_kernel": 3, "fc_width": 8, "num_classes": K}
FIELD, STRIDE = forms.geometry(**NET)


def draw(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def classifier():
    """fn(float [B, H, W, 3]) -> scores, compiled once for each shape; biases are random too."""
    net = tiny.module(lambda rngs: forms.PatchNet(**NET, rngs=rngs))
    run = jax.jit(lambda params, x: functional.merge(net.graphs.inference, params, {})(x))
    return functools.partial(run, net.params)


@pytest.mark.parametrize("size", [(62, 54), (65, 57), (FIELD, FIELD)])
def test_each_score_of_the_map_equals_the_classifier_s_score_of_its_patch(classifier, size):
    assert (FIELD, STRIDE) == (38, 8)
    image = draw(0, *size, 3)
    scores = np.asarray(classifier(image[None])[0])
    rows, cols = ((n - FIELD) // STRIDE + 1 for n in size)
    for i, j in np.ndindex(rows, cols):
        top, left = STRIDE * i, STRIDE * j
        patch = image[None, top : top + FIELD, left : left + FIELD]
        alone = classifier(patch)
        assert alone.shape == (1, 1, 1, K)
        tiny.assert_close(scores[i, j], alone[0, 0, 0])
    if rows * cols > 1:  # the scores differ
        assert np.ptp(scores[:rows, :cols], axis=(0, 1)).min() > 0.01


@pytest.mark.parametrize("stride", [16, 8, 2])
def test_both_forms_agree_at_any_stride(classifier, stride):
    image = draw(0, 65, 57, 3)
    cut = {"field": FIELD, "stride": stride}
    each = forms.patchwise(classifier, image, batch=5, **cut)
    whole = forms.convolutional(classifier, image, net_stride=STRIDE, **cut)
    assert each.shape == ((65 - FIELD) // stride + 1, (57 - FIELD) // stride + 1, K)
    tiny.assert_close(whole, each)


def test_a_score_does_not_see_beyond_its_patch(classifier):
    image = draw(0, 1, 62, 54, 3)
    patch = jnp.zeros(image.shape, bool).at[:, 8 : 8 + FIELD, 16 : 16 + FIELD].set(True)
    moved = jnp.where(patch, image, 7)
    before, after = classifier(image)[0], classifier(moved)[0]
    np.testing.assert_array_equal(before[1, 2], after[1, 2])
    assert (before != after).any(axis=-1).sum() == before.shape[0] * before.shape[1] - 1
    for corner in ((8, 16), (8 + FIELD - 1, 16 + FIELD - 1)):  # it sees the whole patch
        touched = image.at[(0, *corner)].add(100.0)
        assert (classifier(touched)[0, 1, 2] != before[1, 2]).any()


def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves each class with its kernel of [k, k, 1, K], without padding."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
        precision="highest",
    )


def assert_adjoint(forward, backward, x: jax.Array, y: jax.Array) -> None:
    """Asserts <forward(x), y> = <x, backward(y)>, and that each is the other's derivative rule."""
    ahead, back = forward(x), backward(y)
    assert ahead.shape == y.shape
    assert back.shape == x.shape
    left = np.vdot(np.asarray(ahead, np.float64), np.asarray(y, np.float64))
    right = np.vdot(np.asarray(x, np.float64), np.asarray(back, np.float64))
    scale = np.linalg.norm(ahead) * np.linalg.norm(y)
    assert abs(left - right) <= 1e-6 * scale
    assert abs(left) > 1e-3 * scale  # the products are not zero by chance
    tiny.assert_close(jax.vjp(forward, x)[1](y)[0], back, 1e-6)
    tiny.assert_close(jax.vjp(backward, y)[1](x)[0], ahead, 1e-6)


@pytest.mark.parametrize(
    ("start", "size"), [(0, (8, 12)), (1, (6, 10)), (1, (5, 9))], ids=["whole", "crop", "odd"]
)
def test_learned_upsampling_is_the_adjoint_of_a_strided_convolution(start, size):
    """Cropping is the adjoint of padding with zeros: the two correspond."""
    height, width = 3, 5
    up = LearnedUp2(K)
    up.kernel[...] = kernel = draw(0, 4, 4, 1, K)
    whole = (2 * height + 2, 2 * width + 2)
    pads = [(start, n - start - seen) for n, seen in zip(whole, size, strict=True)]

    def down(x):
        return convolve(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel, 2)

    x, y = draw(1, 2, *size, K), draw(2, 2, height, width, K)
    assert_adjoint(down, functools.partial(up, size=size, start=start), x, y)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_bilinear_upsampling_is_the_adjoint_with_the_bilinear_kernel(factor):
    ramp = resize.bilinear_kernel(2 * factor)
    kernel = jnp.asarray(np.outer(ramp, ramp)[:, :, None, None], jnp.float32)
    cells = (3, 2)
    size = tuple((n + 1) * factor for n in cells)
    matrices = [
        resize.Resize("transposed", factor).matrix(n, m) for n, m in zip(cells, size, strict=True)
    ]

    def up(y):
        return resize.apply(y, *matrices)

    def down(x):
        return convolve(x, jnp.tile(kernel, (1, 1, 1, K)), factor)

    x, y = draw(1, 1, *size, K), draw(2, 1, *cells, K)
    assert_adjoint(down, up, x, y)

    # JAX's transposed convolution with the dense kernel of the release, diagonal in classes.
    dense = kernel * jnp.eye(K)
    by_jax = jax.lax.conv_transpose(
        y,
        dense,
        (factor, factor),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    tiny.assert_close(up(y), by_jax, 1e-6)


def test_learned_upsampling_starts_as_bilinear_upsampling_by_two():
    y = draw(0, 2, 3, 5, K)
    matrices = [resize.Resize("transposed", 2).matrix(n, 2 * n + 2) for n in (3, 5)]
    learned = LearnedUp2(K)(y, (8, 12), start=0)
    tiny.assert_close(learned, resize.apply(y, *matrices), 1e-6)
