import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from segjax import sharding
from segjax.errors import InputError
from segjax.models import functional
from segjax.training import state
from tests import tiny


def parts(devices: int = 1, **changes):
    return tiny.assemble(tiny.short_config(model__backbone__batch_norm=True, **changes), devices)


def initial(**changes) -> state.TrainState:
    return parts(**changes).initial_state()


def test_a_mesh_splits_devices_into_data_and_space():
    for space in (1, 2, 8):
        mesh = sharding.make_mesh(space)
        assert mesh.axis_names == ("data", "space")
        assert mesh.devices.shape == (8 // space, space)
    assert sharding.make_mesh(1, jax.devices()[:3]).devices.shape == (3, 1)


@pytest.mark.parametrize("space", [0, -1, 3, 16])
def test_a_space_that_does_not_divide_the_devices_is_refused(space):
    with pytest.raises(InputError, match=rf"config.mesh.space is {space}.* 8 devices"):
        sharding.make_mesh(space)


def test_a_batch_lies_with_its_rows_over_data_and_heights_over_space():
    rows = tiny.batch(0)
    placed = sharding.put_batch(sharding.make_mesh(2), rows)
    for name, array in placed.items():
        np.testing.assert_array_equal(array, rows[name])
        shard = (2, 16) if name in ("image", "label") else (2,)
        assert array.addressable_shards[0].data.shape[: len(shard)] == shard
        assert array.dtype == rows[name].dtype


@pytest.mark.parametrize(("rows", "height"), [(6, 32), (8, 31)])
def test_a_batch_that_does_not_divide_is_refused(rows, height):
    batch = tiny.batch(0, rows, (height, 48))
    with pytest.raises(InputError, match=f"{rows} images of height {height} does not divide"):
        sharding.put_batch(sharding.make_mesh(2), batch)


@pytest.mark.parametrize("spec", [P("data", "space"), P("data"), P(None, "space"), P()])
def test_local_rows_are_the_rows_that_were_put(spec):
    array = np.arange(8 * 6 * 5).reshape(8, 6, 5)
    for space in (1, 2):
        placed = jax.device_put(array, NamedSharding(sharding.make_mesh(space), spec))
        np.testing.assert_array_equal(sharding.local_rows(placed), array)


def test_local_rows_of_one_number_a_row():
    array = np.arange(8)
    placed = jax.device_put(array, NamedSharding(sharding.make_mesh(2), P("data")))
    np.testing.assert_array_equal(sharding.local_rows(placed), array)


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
    made = parts(8, ema_decay=0.9)
    shapes, ts = made.state_shapes(), made.initial_state()
    assert jax.tree.structure(shapes) == jax.tree.structure(ts)
    for shape, leaf in zip(jax.tree.leaves(shapes), jax.tree.leaves(ts), strict=True):
        assert (shape.shape, shape.dtype) == (leaf.shape, leaf.dtype)
        assert shape.sharding.is_equivalent_to(leaf.sharding, leaf.ndim)


class Listed(nnx.Module):
    """Layers in a list, with statistics."""

    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs), nnx.BatchNorm(2, rngs=rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, 2] -> [B, 2]."""
        for layer in self.layers:
            x = layer(x)
        return x


def test_plain_names_are_strings_and_merge_gives_the_module_back():
    module = Listed(nnx.Rngs(0))
    _, params, batch_stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    params, batch_stats = functional.plain(params), functional.plain(batch_stats)
    assert set(params["layers"]) == {"0", "1"}
    assert set(batch_stats["layers"]) == {"1"}
    x = jax.random.normal(jax.random.key(0), (4, 2))
    merged = functional.merge(nnx.graphdef(module), params, batch_stats)
    np.testing.assert_array_equal(merged(x), module(x))


def test_a_variable_of_another_kind_in_the_model_is_an_error():
    """A layer that keeps its own random state would change what a checkpoint holds."""

    def build(rngs: nnx.Rngs) -> nnx.Module:
        module = Listed(rngs)
        module.dropout = nnx.Dropout(0.5, rngs=rngs)
        return module

    with pytest.raises(ValueError):
        state.create(build, optax.sgd(0.1), seed=0, ema=False, mesh=sharding.make_mesh(1))


def test_keys_are_those_of_nnx():
    ours, theirs = functional.keys(7), nnx.Rngs(7)
    for draw in ("params", "params", "dropout", "params"):
        found, expected = (jax.random.key_data(getattr(rngs, draw)()) for rngs in (ours, theirs))
        np.testing.assert_array_equal(found, expected)
