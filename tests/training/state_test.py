"""The train state before the first step."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from segjax import sharding
from segjax.models import functional
from segjax.training import state
from tests import tiny
from tests.models.functional_test import Listed


def assembled(devices: int = 1, **changes):
    return tiny.assemble(tiny.short_config(model__backbone__batch_norm=True, **changes), devices)


def initial(**changes) -> state.TrainState:
    return assembled(**changes).initial_state()


def test_a_state_follows_its_seed():
    first = initial(seed=3)
    tiny.assert_same_bits(initial(seed=3), first)
    other = tiny.by_name(initial(seed=4).params)
    for name, leaf in tiny.by_name(first.params).items():
        drawn = name.endswith("kernel") and "score" not in name
        assert (leaf != other[name]).any() == drawn, name


def test_a_state_is_the_same_on_any_devices_and_replicated():
    one, all_eight = initial(), initial(devices=8)
    tiny.assert_same_bits(all_eight, one)
    for leaf in jax.tree.leaves(all_eight):
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.sharding.device_set) == 8


def test_a_state_starts_at_step_zero_with_float32_weights():
    ts = initial(dtype="bfloat16", ema_decay=0.9)
    assert ts.step == ts.skipped == 0
    assert ts.step.dtype == ts.skipped.dtype == jnp.int32
    for leaf in jax.tree.leaves((ts.params, ts.batch_stats, ts.ema, ts.opt_state)):
        assert leaf.dtype == jnp.float32
    tiny.assert_same_bits(ts.ema, {"params": ts.params, "batch_stats": ts.batch_stats})
    assert initial().ema == {}


def test_no_two_leaves_share_a_buffer():
    """The state is donated: a buffer given away twice is an error, or wrong numbers."""
    found = jax.tree.leaves(initial(ema_decay=0.9))
    pointers = {leaf.addressable_shards[0].data.unsafe_buffer_pointer() for leaf in found}
    assert len(pointers) == len(found)


def test_shapes_are_those_of_a_state():
    made = assembled(8, ema_decay=0.9)
    shapes, ts = made.state_shapes(), made.initial_state()
    assert jax.tree.structure(shapes) == jax.tree.structure(ts)
    for shape, leaf in zip(jax.tree.leaves(shapes), jax.tree.leaves(ts), strict=True):
        assert (shape.shape, shape.dtype) == (leaf.shape, leaf.dtype)
        assert shape.sharding.is_equivalent_to(leaf.sharding, leaf.ndim)


def test_a_variable_of_another_kind_in_the_model_is_an_error():
    """A layer that keeps its own random state would change what a checkpoint holds."""

    def build(rngs: nnx.Rngs) -> nnx.Module:
        module = Listed(rngs)
        module.dropout = nnx.Dropout(0.5, rngs=rngs)
        return module

    draw = functools.partial(functional.initial_arrays, build)
    with pytest.raises(ValueError):
        state.create(draw, optax.sgd(0.1), seed=0, ema=False, mesh=sharding.make_mesh(1))
