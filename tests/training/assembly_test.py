"""From a config to a training."""

import jax
import numpy as np
import pytest

from segjax.errors import InputError
from segjax.training import assembly
from tests import tiny


def test_the_parts_are_those_of_the_config():
    made = tiny.short_config(
        input_scale=0.5, optim__schedule="constant", optim__lr=0.25, loss__blocks=5
    )
    training = assembly.assemble(made, tiny.SPEC, [1.0, 2.0, 3.0, 4.0, 5.0], jax.devices()[:2])
    assert training.config is made
    assert training.model.spec == tiny.SPEC
    assert training.mesh.devices.size == 2
    assert float(training.optimizer.schedule(3)) == 0.25
    assert training.loss.class_weights == (1.0, 2.0, 3.0, 4.0, 5.0)
    assert training.loss.blocks == 5
    assert training.augmentation.base_scale == 0.5
    assert tuple(training.augmentation.size) == tiny.SIZE


def test_it_starts_with_the_weights_that_its_model_draws():
    training = tiny.assemble(tiny.short_config(seed=3, ema_decay=0.5))
    ts = training.initial_state()
    params, batch_stats = training.model.draw(3)
    tiny.assert_same_bits(ts.params, params)
    tiny.assert_same_bits(ts.batch_stats, batch_stats)
    tiny.assert_same_bits(ts.ema, {"params": params, "batch_stats": batch_stats})
    assert jax.tree.structure(training.state_shapes()) == jax.tree.structure(ts)


def test_the_step_is_jitted_once_and_gives_the_memory_of_the_state_back():
    training = tiny.assemble(tiny.short_config())
    assert training.step is training.step
    ts = tiny.awake_state(training)
    leaves = jax.tree.leaves(ts.params)
    after, _ = training.step(ts, tiny.batch(0))
    assert all(leaf.is_deleted() for leaf in leaves)
    training.step(after, tiny.batch(1))
    assert training.step._cache_size() == 1


def test_a_scale_and_a_size_of_the_input_exclude_each_other():
    config = tiny.short_config(input_size=(24, 32), input_scale=0.5)
    with pytest.raises(InputError, match="only one of them"):
        assembly.assemble(config, tiny.SPEC, None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model__head__name": "fcn8"}, 'config.model.head.*Did you mean "fcn8s"'),
        ({"model__backbone__name": "vgg61"}, 'config.model.backbone.*Did you mean "vgg16"'),
        ({"loss__reduction": "mean"}, "config.loss.reduction"),
        ({"optim__schedule": "polly"}, 'config.optim.schedule.*Did you mean "poly"'),
        ({"mesh__space": 3}, "config.mesh.space is 3"),
    ],
)
def test_names_that_are_not_known_are_refused(changes, told):
    config = tiny.config(**changes)
    with pytest.raises(InputError, match=told):
        assembly.assemble(config, tiny.SPEC, None, jax.devices())


def test_class_weights_are_numbers_of_the_loss_alone():
    plain = tiny.assemble(tiny.short_config())
    weighed = assembly.assemble(
        tiny.short_config(), tiny.SPEC, [9.0, 1.0, 1.0, 1.0, 1.0], jax.devices()[:1]
    )
    batch, losses = tiny.batch(0), []
    for training in (plain, weighed):
        _, scalars = training.step(tiny.awake_state(training), batch)
        losses.append(float(scalars["loss"]))
    assert losses[0] != losses[1]
    assert np.isfinite(losses).all()


def test_a_longer_run_tells_its_rates():
    def grown(steps: int, step: int, **changes) -> str:
        made = tiny.short_config(total_steps=steps, optim__lr=0.1, optim__warmup_steps=0, **changes)
        return assembly.growth(tiny.assemble(made), 100, step)

    told = "config.total_steps grows from 100 to 200: "
    linear = {"optim__schedule": "poly", "optim__power": 1.0}
    assert grown(200, 50, **linear) == (
        f"{told}the learning rate of step 51 is 0.075 in place of 0.05, and the later ones follow "
        "the schedule of the longer run."
    )
    assert grown(200, 100, **linear) == (
        f"{told}the learning rate goes from 0.001 to 0.05 at step 101."
    )
    assert grown(200, 50, optim__schedule="constant") == (
        f"{told}the learning rate of step 51 stays 0.1."
    )
