"""The mesh of devices, and how batches lie on it."""

import dataclasses
import importlib.util
import itertools

import jax
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
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


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a device tells of itself."""

    id: int
    process_index: int
    coords: tuple[int, int, int]
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "chip"


def chips(size, host, cores=1):
    """The devices of a slice as a runtime lists them: host by host, but ids by place."""
    cells = [tuple(reversed(at)) for at in itertools.product(*map(range, reversed(size)))]
    hosts = sorted({tuple(a // b for a, b in zip(at, host, strict=True))[::-1] for at in cells})
    found = []
    for number, at in enumerate(cells):
        process = hosts.index(tuple(a // b for a, b in zip(at, host, strict=True))[::-1])
        found += [Chip(cores * number + core, process, at, core) for core in range(cores)]
    return sorted(found, key=lambda chip: chip.process_index)


SLICES = {
    "v4 2x2x2": chips((2, 2, 2), (2, 2, 1), 2),
    "v4 4x4x4": chips((4, 4, 4), (2, 2, 1), 2),
    "v5e 4x4": chips((4, 4, 1), (2, 2, 1)),
    "v5p 4x4x4": chips((4, 4, 4), (2, 2, 1)),
    "v6e 2x4": chips((2, 4, 1), (2, 4, 1)),
}


def assert_follows_processes(devices, space):
    mesh = sharding.make_mesh(space, devices)
    owners = [chip.process_index for chip in mesh.devices.flat]
    assert owners == sorted(owners)
    assert all(len({chip.process_index for chip in row}) == 1 for row in mesh.devices)
    assert sharding.process_rows(mesh) == tuple(range(owners[-1] + 1))
    for row in mesh.devices:
        for one, next_one in itertools.pairwise(row):
            assert sum(abs(a - b) for a, b in zip(one.coords, next_one.coords, strict=True)) <= 1


@pytest.mark.parametrize("space", [1, 2, 4])
@pytest.mark.parametrize("name", SLICES)
def test_rows_of_a_mesh_follow_the_processes(name, space):
    assert_follows_processes(SLICES[name], space)
    # However they are listed.
    assert_follows_processes(sorted(SLICES[name], key=lambda chip: chip.id % 5), space)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("name", ["v4:2x2x4", "v4:4x4x4", "v5e:4x4", "v5p:4x4x4", "v6e:4x4"])
def test_rows_of_a_mesh_follow_the_processes_on_real_slices(name, monkeypatch):
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    monkeypatch.setenv("TPU_WORKER_ID", "0")
    devices = topologies.get_topology_desc(name, platform="tpu").devices
    for space in (1, 2, 4):
        assert_follows_processes(devices, space)


def test_a_mesh_that_mixes_processes_takes_no_batch():
    (a, b), (c, d) = (
        [chip for chip in SLICES["v4 2x2x2"] if chip.process_index == p][:2] for p in (0, 1)
    )
    mixed = Mesh(np.array([[a], [c], [b], [d]], object), ("data", "space"), (AxisType.Auto,) * 2)
    with pytest.raises(ValueError, match=r"must follow the processes, got \[0, 1, 0, 1\]"):
        sharding.put_batch(mixed, tiny.batch(0))


def test_processes_of_different_numbers_of_devices_are_refused():
    with pytest.raises(InputError, match=r"as many devices as the others.*\{0: 8, 1: 7\}"):
        sharding.make_mesh(1, SLICES["v4 2x2x2"][:-1])


@pytest.mark.parametrize(("space", "taken"), [(1, 1), (2, 2), (3, 1), (6, 2), (16, 8)])
def test_a_space_at_most_is_what_the_devices_allow(space, taken):
    assert sharding.make_mesh(space, at_most=True).devices.shape == (8 // taken, taken)


def test_a_batch_lies_with_its_rows_over_data_and_heights_over_space():
    rows = tiny.batch(0)
    placed = sharding.put_batch(sharding.make_mesh(2), rows)
    for name, array in placed.items():
        np.testing.assert_array_equal(array, rows[name])
        shard = (2, 16) if name in ("image", "label") else (2,)
        assert array.addressable_shards[0].data.shape[: len(shard)] == shard
        assert array.dtype == rows[name].dtype


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match="6 images does not divide over 4 x 2 devices"):
        sharding.put_batch(sharding.make_mesh(2), tiny.batch(0, 6))


def test_images_of_a_height_that_does_not_divide_are_put_whole():
    rows, mesh = tiny.batch(0, 8, (31, 48)), sharding.make_mesh(2)
    placed = sharding.put_batch(mesh, rows)
    assert placed["image"].addressable_shards[0].data.shape == (2, 31, 48, 3)
    shapes = sharding.batch_shapes(mesh, rows)
    assert {name: x.sharding for name, x in placed.items()} == {
        name: x.sharding for name, x in shapes.items()
    }


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
