import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import models
from segjax.errors import InputError
from segjax.models import functional
from segjax.models.backbones import vgg
from tests import tiny

TINY = {"batch_norm": True, "width": 4, "fc_width": 8, "border": "same", "dropout": 0.5}
PAPER = {"batch_norm": False, "width": 64, "fc_width": 4096, "border": "caffe", "dropout": 0.5}


def build(rngs: nnx.Rngs, **options) -> vgg.VGG16:
    return vgg.VGG16(**TINY | options, rngs=rngs)


def shapes_of(size: tuple[int, int], **options) -> dict[str, tuple[int, ...]]:
    """Stage -> shape, without computing."""

    def run(x):
        return dict(build(nnx.Rngs(0), **options)(x, rngs=nnx.Rngs(0)).stages)

    found = jax.eval_shape(run, jnp.zeros((2, *size, 3)))
    return {name: stage.shape for name, stage in found.items()}


@pytest.mark.parametrize(
    ("batch_norm", "parameters", "statistics"),
    [
        (False, 134_260_544, 0),
        # 13 convolutions of 4224 channels and fc6, fc7 of 8192: two numbers for one bias each.
        (True, 134_260_544 + 4_224 + 8_192, 2 * (4_224 + 8_192)),
    ],
)
def test_the_trunk_has_the_parameters_of_the_paper(batch_norm, parameters, statistics):
    options = PAPER | {"batch_norm": batch_norm}
    params, batch_stats = jax.eval_shape(
        functools.partial(functional.initial_arrays, functools.partial(build, **options)), 0
    )
    assert tiny.count(params) == parameters
    assert tiny.count(batch_stats) == statistics


@pytest.mark.parametrize(
    ("batch_norm", "fc_batch_norm", "norms", "biases"),
    [
        (False, None, 0, 15),
        (True, None, 15, 0),
        (True, True, 15, 0),
        (True, False, 13, 2),  # torchvision's vgg16_bn
        (False, True, 2, 13),
    ],
)
def test_the_last_two_layers_have_a_norm_or_biases(batch_norm, fc_batch_norm, norms, biases):
    options = {"batch_norm": batch_norm, "fc_batch_norm": fc_batch_norm}
    arrays = functools.partial(functional.initial_arrays, functools.partial(build, **options))
    params, batch_stats = jax.eval_shape(arrays, 0)
    paths = list(functional.by_path(params, batch_stats))
    normed = [path for path in paths if path.endswith("/scale")]
    assert len(normed) == norms
    assert sum(path.endswith("/bias") for path in paths) == norms + biases
    last = bool(batch_norm if fc_batch_norm is None else fc_batch_norm)
    assert ("norm6/scale" in paths, "norm7/scale" in paths) == (last, last)
    assert ("fc6/bias" in paths, "fc7/bias" in paths) == (not last, not last)


def test_vgg16_bn_has_torchvision_s_parameters_without_biases_before_norms():
    def classifier(rngs):
        backbone = PAPER | {"name": "vgg16", "batch_norm": True, "fc_batch_norm": False}
        head = {"name": "classifier"}
        return models.build(
            backbone=backbone, head=head, aux=None, num_classes=1000, dtype="float32", rngs=rngs
        )

    params, batch_stats = jax.eval_shape(
        functools.partial(functional.initial_arrays, classifier), 0
    )
    assert tiny.count(params) == 138_365_992 - 4_224
    assert tiny.count(batch_stats) == 2 * 4_224


def test_a_border_of_100_gives_the_sizes_of_the_release():
    shapes = shapes_of((500, 500), border="caffe")
    assert [shapes[stage][1:3] for stage in vgg.STAGES] == [
        (349, 349), (175, 175), (88, 88), (44, 44), (22, 22)
    ]  # fmt: skip
    assert shapes["fc7"] == (2, 16, 16, 8)


@pytest.mark.parametrize("size", [(45, 61), (32, 48), (1, 1), (33, 2)])
def test_stages_halve_and_round_up(size):
    shapes = shapes_of(size)
    height, width = size
    for stage, scale in zip(vgg.STAGES, (1, 2, 4, 8, 8), strict=True):
        height, width = -(-height // 2), -(-width // 2)
        assert shapes[stage] == (2, height, width, 4 * scale)
    assert shapes["fc7"] == (2, height, width, 8)


def test_features_have_the_right_channels_strides_and_border():
    net = tiny.module(build)

    def run(x):
        model = functional.merge(net.graphs.inference, net.params, net.batch_stats)
        features = model(x)
        assert dict(features.strides) == {
            "stage1": 2, "stage2": 4, "stage3": 8, "stage4": 16, "stage5": 32, "fc7": 32
        }  # fmt: skip
        assert features.border == "same"
        assert {name: x.shape[-1] for name, x in features.stages.items()} == model.channels
        return features.stages["fc7"]

    jax.eval_shape(run, jnp.zeros((1, 32, 48, 3)))


@pytest.fixture(scope="module")
def runs():
    """fc7 of a batch by the training and by the inference graph: fn(images, key)."""
    net = tiny.module(build, seed=2)

    def run(graph, x, key):
        model = functional.merge(graph, net.params, net.batch_stats)
        return model(x, rngs=nnx.Rngs(dropout=key)).stages["fc7"]

    return [
        jax.jit(functools.partial(run, graph))
        for graph in (net.graphs.training, net.graphs.inference)
    ]


def test_evaluation_does_not_look_across_the_batch_and_training_does(runs):
    training, evaluation = runs
    keys = jax.random.split(jax.random.key(0))
    one = jax.random.normal(keys[0], (4, 32, 48, 3))
    other = one.at[1:].set(3 * jax.random.normal(keys[1], (3, 32, 48, 3)) + 1)
    first = [np.asarray(evaluation(x, keys[0])[0]) for x in (one, other)]
    np.testing.assert_array_equal(*first)
    assert (np.asarray(evaluation(other, keys[0])[1]) != first[0]).any()
    first = [np.asarray(training(x, keys[0])[0]) for x in (one, other)]
    assert np.abs(first[0] - first[1]).max() > 0.1


def test_dropout_follows_its_key_in_training_and_is_absent_in_evaluation(runs):
    training, evaluation = runs
    x = jax.random.normal(jax.random.key(0), (4, 32, 48, 3))
    first, second = jax.random.split(jax.random.key(1))
    np.testing.assert_array_equal(training(x, first), training(x, first))
    assert (training(x, first) != training(x, second)).any()
    np.testing.assert_array_equal(evaluation(x, first), evaluation(x, second))
    # fc7 is positive nearly everywhere, so zeros were dropped.
    assert 0.3 < (training(x, first) == 0).mean() < 0.7
    assert (evaluation(x, first) == 0).mean() < 0.3


def test_an_unknown_border_is_refused():
    with pytest.raises(InputError, match="border.*'reflect'.*same, caffe"):
        build(nnx.Rngs(0), border="reflect")
