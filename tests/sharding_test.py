"""The mesh of devices, and how batches lie on it."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from segjax import sharding
from segjax.errors import InputError
from tests import tiny


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
