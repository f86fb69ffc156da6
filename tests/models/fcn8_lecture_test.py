import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import models
from segjax.errors import InputError
from segjax.models import resize
from segjax.models.features import Features
from segjax.models.heads import fcn8_lecture
from tests import tiny

CHANNELS = {"stage3": 3, "stage4": 4, "fc7": 5}
K = 3


def make_head(**options) -> fcn8_lecture.FCN8Lecture:
    """A head with random biases, so that each ReLU cuts some scores and keeps some."""
    head = fcn8_lecture.FCN8Lecture(CHANNELS, K, rngs=nnx.Rngs(params=0), **options)
    rng = np.random.default_rng(0)
    for conv in (head.score_pool4, head.score_pool3):
        conv.bias[...] = jnp.asarray(rng.normal(size=conv.bias.shape), jnp.float32)
    return head


def make_features(size: tuple[int, int], **options) -> Features:
    """Random stages of an image of `size`, with poolings that round up."""
    rng = np.random.default_rng(1)
    strides = {"stage3": 8, "stage4": 16, "fc7": 32}
    stages = {
        name: jnp.asarray(
            rng.normal(size=(2, *(-(-s // stride) for s in size), CHANNELS[name])), jnp.float32
        )
        for name, stride in strides.items()
    }
    return Features(stages, strides, **options)


def upsampled(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A transposed convolution with a stride as large as its kernel, pixel by pixel."""
    factor, _, _, features = kernel.shape
    batch, height, width, _ = x.shape
    out = np.zeros((batch, factor * height, factor * width, features))
    for b, i, j in np.ndindex(batch, height, width):
        for u, v in np.ndindex(factor, factor):
            out[b, factor * i + u, factor * j + v] += x[b, i, j] @ kernel[u, v]
    return out


def by_loops(head, features: Features, size: tuple[int, int]) -> np.ndarray:
    def array(x) -> np.ndarray:
        return np.asarray(x[...], np.float64)

    def relu_score(conv, stage: str) -> np.ndarray:
        x = array(features.stages[stage]) @ array(conv.kernel)[0, 0] + array(conv.bias)
        assert (x < 0).any()
        assert (x > 0).any()
        return np.maximum(x, 0)

    pool3 = relu_score(head.score_pool3, "stage3")
    pool4 = upsampled(relu_score(head.score_pool4, "stage4"), array(head.up_pool4.kernel))
    conv7 = upsampled(array(features.stages["fc7"]), array(head.up_top.kernel))
    height, width = pool3.shape[1:3]
    x = pool3 + pool4[:, :height, :width] + conv7[:, :height, :width]
    return upsampled(x, array(head.up_image.kernel))[:, : size[0], : size[1]]


@pytest.mark.parametrize("size", [(64, 32), (33, 47), (8, 41), (1, 1), (40, 3)])
def test_the_head_equals_plain_loops_at_any_size(size):
    head, features = make_head(), make_features(size)
    scores = head(features)
    found = resize.apply(scores.values, *scores.matrices(size))
    assert found.shape == (2, *size, K)
    np.testing.assert_allclose(found, by_loops(head, features, size), atol=1e-5)


def test_scores_are_cropped_to_the_image_without_interpolation():
    scores = make_head()(make_features((33, 47)))
    assert scores.values.shape == (2, 40, 48, K)
    for matrix, pixels in zip(scores.matrices((33, 47)), (33, 47), strict=True):
        np.testing.assert_array_equal(matrix, np.eye(pixels, matrix.shape[1]))


@pytest.mark.parametrize("classes", [12, 21])
def test_the_network_has_the_sum_of_its_layers_parameters(classes):
    """conv7 4 x 4, pool4 and pool3 scored with biases, and 2 x 2 and 8 x 8 from class to class."""
    network = nnx.eval_shape(
        lambda: models.build(
            backbone={
                "name": "vgg16", "batch_norm": False, "width": 64, "fc_width": 4096,
                "border": "same", "dropout": 0.0,
            },
            head={"name": "fcn8_lecture"},
            aux=None,
            num_classes=classes,
            dtype="float32",
            rngs=nnx.Rngs(0),
        )
    )  # fmt: skip
    head = 16 * 4096 * classes + (512 + 1 + 256 + 1) * classes + (4 + 64) * classes**2
    assert tiny.count(nnx.state(network, nnx.Param)) == 134_260_544 + head


def test_kernels_are_initialised_as_in_keras():
    up = fcn8_lecture.PatchUp(64, 12, factor=4, rngs=nnx.Rngs(params=0))
    drawn, limit = np.asarray(up.kernel[...]), np.sqrt(6 / (16 * (64 + 12)))
    assert 0.99 * limit < np.abs(drawn).max() <= limit
    assert drawn.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)


def test_scores_are_float32_in_full_precision_for_any_dtype():
    assert make_head(dtype=jnp.bfloat16)(make_features((32, 32))).values.dtype == jnp.float32
    up = fcn8_lecture.PatchUp(K, K, factor=2, rngs=nnx.Rngs(params=0))
    assert not tiny.products_below_full_precision(up, jnp.zeros((1, 3, 2, K)))


def test_every_part_of_the_head_gets_a_gradient():
    graph, params = nnx.split(make_head(), nnx.Param)
    features = make_features((64, 64))

    def loss(params):
        return (nnx.merge(graph, params)(features).values ** 2).sum()

    gradients = tiny.by_name(nnx.as_pure(jax.grad(loss)(params)))
    assert len(gradients) == 7
    for name, gradient in gradients.items():
        assert np.abs(gradient).max() > 0, name


@pytest.mark.parametrize("options", [{"border": "caffe"}, {"shifts": {"stage3": 2.5}}])
def test_stages_with_a_border_or_shifts_are_refused(options):
    with pytest.raises(InputError, match=r"config.model.\*: fcn8_lecture needs.*vgg16"):
        make_head()(make_features((64, 64), **options))
