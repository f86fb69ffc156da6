import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import models
from segjax.errors import InputError
from segjax.models import functional, resize
from segjax.models.deconvolution import LearnedUp2
from segjax.models.features import Features, Scores
from segjax.models.heads import fcn
from tests import tiny

CHANNELS = {"stage3": 3, "stage4": 4, "fc7": 5}
K = 3


def build(rngs: nnx.Rngs, *, num_classes: int = K, upsampling: str = "fixed", **options):
    """FCN-8s on a narrow VGG; `options` are the backbone's."""
    backbone = {"batch_norm": False, "width": 4, "fc_width": 8, "border": "same", "dropout": 0.5}
    return models.build(
        backbone={"name": "vgg16"} | backbone | options,
        head={"name": "fcn8s", "upsampling": upsampling},
        aux=None,
        num_classes=num_classes,
        dtype="float32",
        rngs=rngs,
    )


def make_head(upsampling: str) -> fcn.FCN8s:
    """A head with random score kernels and biases."""
    head = fcn.FCN8s(CHANNELS, K, upsampling=upsampling, rngs=nnx.Rngs(params=0))
    rng = np.random.default_rng(0)
    for conv in (head.score_top, head.score_pool4, head.score_pool3):
        conv.kernel[...] = jnp.asarray(rng.normal(size=conv.kernel.shape), jnp.float32)
        conv.bias[...] = jnp.asarray(rng.normal(size=conv.bias.shape), jnp.float32)
    return head


def make_features(border: str, fc7: tuple, stage4: tuple, stage3: tuple) -> Features:
    rng = np.random.default_rng(1)
    sizes = {"fc7": fc7, "stage4": stage4, "stage3": stage3}
    stages = {
        name: jnp.asarray(rng.normal(size=(2, *size, CHANNELS[name])), jnp.float32)
        for name, size in sizes.items()
    }
    return Features(stages, {"stage3": 8, "stage4": 16, "fc7": 32}, border=border)


def to_image(scores: Scores, size: tuple[int, int]) -> jax.Array:
    return resize.apply(scores.values, *scores.matrices(size))


def deconvolve(x: np.ndarray, factor: int) -> np.ndarray:
    """Caffe's deconvolution, kernel 2f, stride f, bilinear: [B, h, w, K], pixel by pixel."""
    size = 2 * factor
    ramp = 1 - np.abs(np.arange(size) - (factor - 0.5)) / factor
    kernel = ramp[:, None] * ramp[None, :]
    batch, height, width, classes = x.shape
    out = np.zeros((batch, (height - 1) * factor + size, (width - 1) * factor + size, classes))
    for i in range(height):
        for j in range(width):
            window = out[:, i * factor : i * factor + size, j * factor : j * factor + size]
            window += kernel[None, :, :, None] * x[:, i : i + 1, j : j + 1]
    return out


def release_by_loops(head: fcn.FCN8s, features: Features, size: tuple[int, int]) -> np.ndarray:
    """The head of the FCN release: score_fr, up, fuse at 5, up, fuse at 9, up, crop at 31."""

    def score(conv, stage):
        x = np.asarray(features.stages[stage], np.float64)
        return x @ np.asarray(conv.kernel[...], np.float64)[0, 0] + np.asarray(conv.bias[...])

    def crop(x, offset, height, width):
        assert x.shape[1] >= offset + height
        assert x.shape[2] >= offset + width
        return x[:, offset : offset + height, offset : offset + width]

    x = deconvolve(score(head.score_top, "fc7"), 2)
    x = x + crop(score(head.score_pool4, "stage4"), 5, *x.shape[1:3])
    x = deconvolve(x, 2)
    x = x + crop(score(head.score_pool3, "stage3"), 9, *x.shape[1:3])
    return crop(deconvolve(x, 8), 31, *size)


@pytest.mark.parametrize("upsampling", fcn.UPSAMPLINGS)
def test_the_caffe_border_gives_the_scores_of_the_release(upsampling):
    head = make_head(upsampling)
    features = make_features("caffe", (2, 3), (12, 14), (25, 29))
    scores = head(features)
    assert scores.values.shape == (2, 14, 18, K)
    for size in ((57, 43), (1, 1)):
        expected = release_by_loops(head, features, size)
        np.testing.assert_allclose(to_image(scores, size), expected, atol=1e-5)


def test_the_worked_sizes_of_the_release_hold():
    def run(x):
        return build(nnx.Rngs(0), border="caffe")(x, rngs=nnx.Rngs(0))[0]

    scores = jax.eval_shape(run, jnp.zeros((1, 500, 500, 3)))
    assert scores.values.shape == (1, 70, 70, K)
    assert scores.resize == resize.Resize("transposed", 8, offset=31)
    rows, cols = scores.matrices((500, 500))
    assert rows.shape == cols.shape == (500, 70)
    whole = resize.Resize("transposed", 8).matrix(70, 600)
    assert whole.any(axis=1).sum() == 568  # rows before the crop
    np.testing.assert_array_equal(rows, whole[31:531])


@pytest.mark.parametrize("border", ["same", "caffe"])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (33, 47), (64, 31), (97, 225)])
def test_scores_cover_exactly_the_image_at_any_size(border, size):
    def run(x):
        return build(nnx.Rngs(0), border=border)(x, rngs=nnx.Rngs(0))[0]

    scores = jax.eval_shape(run, jnp.zeros((1, *size, 3)))
    for matrix, pixels, cells in zip(
        scores.matrices(size), size, scores.values.shape[1:3], strict=True
    ):
        assert matrix.shape == (pixels, cells)
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)  # no pixel lies beyond the scores


@pytest.mark.parametrize(
    ("classes", "parameters"),
    [
        (21, 134_362_751),
        (11, 134_314_081),
        (19, 134_353_017),
        (33, 134_421_155),
        (40, 134_455_224),
        (60, 134_552_564),
    ],
)
def test_the_network_has_the_parameters_of_the_paper(classes, parameters):
    # The trunk, 134,260,544 of them, is counted in vgg_test.
    head = nnx.eval_shape(
        lambda: fcn.FCN8s({"stage3": 256, "stage4": 512, "fc7": 4096}, classes, rngs=nnx.Rngs(0))
    )
    assert 134_260_544 + tiny.count(nnx.state(head, nnx.Param)) == parameters


def test_learned_upsampling_adds_one_kernel_per_class_and_step():
    heads = [nnx.eval_shape(lambda how=how: make_head(how)) for how in fcn.UPSAMPLINGS]
    fixed, learned = (tiny.count(nnx.state(head, nnx.Param)) for head in heads)
    assert learned == fixed + 2 * 4 * 4 * K


@pytest.mark.parametrize("upsampling", fcn.UPSAMPLINGS)
def test_the_first_prediction_is_uniform(upsampling):
    head = fcn.FCN8s(CHANNELS, K, upsampling=upsampling, rngs=nnx.Rngs(params=0))
    scores = head(make_features("same", (2, 3), (3, 5), (6, 10)))
    assert not np.asarray(scores.values).any()


def test_learned_upsampling_starts_as_fixed_upsampling():
    caffe = make_features("caffe", (2, 3), (12, 14), (25, 29))
    values = [make_head(how)(caffe).values for how in fcn.UPSAMPLINGS]
    np.testing.assert_allclose(*values, atol=1e-5)
    # Without the border they differ at the rim alone: fixed clamps there, learned fades out.
    same = make_features("same", (4, 5), (8, 9), (15, 18))
    fixed, learned = (np.asarray(make_head(how)(same).values) for how in fcn.UPSAMPLINGS)
    np.testing.assert_allclose(fixed[:, 3:-3, 3:-3], learned[:, 3:-3, 3:-3], atol=1e-5)
    assert np.abs(fixed - learned)[:, 0].max() > 0.01


def test_each_class_is_upsampled_alone_by_one_kernel():
    up = LearnedUp2(K)
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 4, 1, K)).astype(np.float32)
    up.kernel[...] = jnp.asarray(kernel)
    x = rng.normal(size=(1, 3, 2, K)).astype(np.float32)
    expected = np.zeros((1, 8, 6, K))
    for i, j in np.ndindex(3, 2):
        expected[0, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += kernel[:, :, 0] * x[0, i, j]
    np.testing.assert_allclose(up(jnp.asarray(x), (8, 6), start=0), expected, atol=1e-5)
    cropped = up(jnp.asarray(x), (5, 4), start=1)
    np.testing.assert_allclose(cropped, expected[:, 1:6, 1:5], atol=1e-5)


def test_upsampling_keeps_full_precision_on_accelerators():
    kernel = LearnedUp2(K)
    run = functools.partial(kernel, size=(8, 6), start=0)
    assert not tiny.products_below_full_precision(run, jnp.zeros((1, 3, 2, K)))


def test_a_shift_of_32_pixels_shifts_the_scores():
    """Away from the border, by more than the receptive field of 404 and the reach of upsampling."""
    net = tiny.module(functools.partial(build, batch_norm=False))
    shift, width, margin = 32, 640, 240
    wide = jax.random.normal(jax.random.key(0), (1, 32, width + shift, 3))

    @jax.jit
    def run(x):
        scores = functional.merge(net.graphs.inference, net.params, net.batch_stats)(x)[0]
        return to_image(scores, (32, width))

    here, there = np.asarray(run(wide[:, :, :width])), np.asarray(run(wide[:, :, shift:]))
    inside = there[:, :, margin : width - margin - shift]
    np.testing.assert_allclose(
        here[:, :, margin + shift : width - margin], inside, atol=1e-5 * np.abs(inside).max()
    )
    assert inside.std((1, 2)).min() > 1e-3 * np.abs(inside).max()  # the scores vary


def test_an_unknown_upsampling_is_refused():
    with pytest.raises(InputError, match="upsampling.*'nearest'.*fixed, learned"):
        make_head("nearest")
