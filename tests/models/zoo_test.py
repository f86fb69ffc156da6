"""Properties of every network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import models, sharding
from segjax.arrays import Size
from segjax.models import functional, resize
from segjax.training import state
from tests import tiny
from tests.configs_test import RECIPES, recipe
from tests.models.zoo import NETWORKS

every_network = pytest.mark.parametrize("name", sorted(NETWORKS))


def build(name: str, rngs: nnx.Rngs) -> nnx.Module:
    return models.build(**NETWORKS[name], num_classes=tiny.K, dtype="float32", rngs=rngs)


def config(name: str, **changes):
    return tiny.config(model=NETWORKS[name], **changes)


def test_the_zoo_has_every_head_and_every_backbone():
    for part, registry in (("head", models.HEADS), ("backbone", models.BACKBONES)):
        assert {network[part]["name"] for network in NETWORKS.values()} == registry.keys()


@functools.cache
def shaped(name: str):
    """fn(shape of images) -> shapes of the scores in training."""
    graph, arrays = nnx.split(nnx.eval_shape(lambda: build(name, functional.keys(0))))

    def run(arrays, x):
        return nnx.merge(graph, arrays)(x, rngs=nnx.Rngs(0), image=x)

    return lambda *shape: jax.eval_shape(run, arrays, jax.ShapeDtypeStruct(shape, "float32"))


@every_network
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (33, 47), (64, 31)])
def test_scores_cover_exactly_the_image_at_any_size(name, size):
    for scores in shaped(name)(2, *size, 3):
        assert scores.values.shape[-1] == tiny.K
        assert 0 not in scores.values.shape
        for matrix, pixels in zip(scores.matrices(size), size, strict=True):
            assert matrix.shape[0] == pixels
            np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-5)


@every_network
def test_evaluation_does_not_look_across_the_batch(name):
    net = tiny.module(functools.partial(build, name))

    @jax.jit
    def run(x):
        model = functional.merge(net.graphs.inference, net.params, net.batch_stats)
        scores = model(x, image=x)[0]
        return resize.apply(scores.values, *scores.matrices(x.shape[1:3]))

    x = jax.random.normal(jax.random.key(0), (2, 37, 53, 3))
    both, swapped = run(x), run(x[::-1])
    assert both.shape == (2, 37, 53, tiny.K)
    assert jnp.ptp(both) > 0
    tiny.assert_close(swapped[::-1], both)
    tiny.assert_close(run(x.at[1].set(0))[0], both[0])


def step_of(
    name: str, devices: int, space: int, size: Size = tiny.SIZE
) -> tuple[state.TrainState, dict[str, jax.Array]]:
    """What one step makes of awake weights."""
    changes = {"mesh__space": space, "augment__size": size, "optim__parts": ()}
    training = tiny.assemble(config(name, **changes), devices)
    batch = sharding.put_batch(training.mesh, tiny.batch(5, size=size))
    return training.step(tiny.awake_state(training), batch)


QUICK = ("pspnet",)  # it has an auxiliary head and matrix products; the others take minutes


def quick(*names: str) -> pytest.MarkDecorator:
    """Every network, all but some of them in the slow suite."""
    marks = {name: () if name in names else pytest.mark.slow for name in NETWORKS}
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=mark) for name, mark in marks.items()]
    )


@quick(*QUICK)
def test_a_step_on_four_devices_two_per_image_equals_the_step_on_one(name):
    assert_alike(step_of(name, 1, 1), step_of(name, 4, 2))


@quick("segnet")
def test_a_step_on_images_that_strips_do_not_divide_equals_the_step_on_one_device(name):
    """Of 45 rows four devices hold 12, 12, 12 and 9, and of the deepest maps fewer than one."""
    assert_alike(step_of(name, 1, 1, (45, 48)), step_of(name, 4, 4, (45, 48)))


def assert_alike(one, four):
    (one, scalars), (four, expected) = one, four
    assert scalars["grad_norm"] > 0
    tiny.assert_close(four.params, one.params)
    tiny.assert_close(four.batch_stats, one.batch_stats)
    tiny.assert_close(scalars, expected)


def lowers(fn, *shapes) -> bool:
    """Whether a jitted function of convolutions lowers for both platforms, from this CPU."""
    # One program for both platforms takes half as long as two.
    text = fn.trace(*shapes).lower(lowering_platforms=("cuda", "tpu")).as_text()
    return text.count("stablehlo.convolution") >= 2


@every_network
def test_the_gradient_of_a_loss_lowers_for_accelerators_from_a_cpu_host(name):
    training = tiny.assemble(config(name, optim__parts=()))
    model, batch = training.model, tiny.batch(0)

    @jax.jit
    def gradient(params, batch_stats, image, label):
        def loss(params):
            network = functional.merge(model.graphs.training, params, batch_stats)
            outputs = network(model.preprocess(image), rngs=nnx.Rngs(0), image=image)
            return training.loss.total(outputs, label)[0]

        return jax.grad(loss)(params)

    image = jax.ShapeDtypeStruct(batch["image"].shape, "float32")
    assert lowers(gradient, *model.shapes(), image, batch["label"])


@pytest.mark.parametrize("name", QUICK)
def test_a_step_lowers_for_accelerators_from_a_cpu_host(name):
    """What a step adds to the gradient, augmentation and optimiser, is the same for all."""
    training = tiny.assemble(config(name, optim__parts=()))
    rows = sharding.put_batch(training.mesh, tiny.batch(0))
    assert lowers(training.step, training.state_shapes(), rows)


NETWORK_RECIPES = [name for name in RECIPES if not recipe(name).get_config().method.name]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORK_RECIPES)
def test_every_recipe_s_network_takes_a_step_at_full_width(name):
    made = recipe(name).get_config()
    made.batch_size, made.accumulate = 2, 1
    made.augment.size, made.total_steps = (48, 64), 2
    training = tiny.assemble(made)
    before = jax.device_get(training.initial_state().params)
    rows = tiny.batch(0, rows=2, size=(48, 64))
    rows["image"] //= 16  # noise that a lattice of a CRF has room for
    batch = sharding.put_batch(training.mesh, rows)
    ts, scalars = training.step(training.initial_state(), batch)
    assert np.isfinite(scalars["loss"])
    assert scalars["grad_norm"] > 0
    changed = [
        np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before, ts.params)), strict=True)
    ]
    assert sum(changed) > len(changed) / 2
