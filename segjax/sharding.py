"""The device mesh, and the sharding of batches and state."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from segjax import arrays
from segjax.errors import InputError


def make_mesh(
    space: int, devices: Sequence[jax.Device] | None = None, *, at_most: bool = False
) -> Mesh:
    """A mesh ("data", "space") over all devices, or those given, whose rows follow the processes.

    The devices of process 0 come first, then those of process 1, ...: of a batch of B rows, process
    p of P puts and gets rows p B / P to (p + 1) B / P, and an image lies on devices of one process.
    `jax.make_mesh` goes by the places of the chips, which on most TPU slices mixes the processes.
    Within a process every device is beside the one before, so that strips of an image, which
    exchange their borders, are neighbours. What all devices sum, such as gradients, does not depend
    on their order.

    Args:
        space: devices that share an image.
        devices: all by default.
        at_most: take the largest divisor of `space` that the devices of a process allow.

    Raises:
        InputError: if `space` does not divide the devices of one process, or if processes have
            different numbers of them.
    """
    by_process: dict[int, list[jax.Device]] = {}
    for device in jax.devices() if devices is None else devices:
        by_process.setdefault(device.process_index, []).append(device)
    counts = {process: len(local) for process, local in sorted(by_process.items())}
    local = counts[min(counts)]
    if set(counts.values()) != {local}:
        raise InputError(f"Every process needs as many devices as the others; there are {counts}.")
    if at_most:
        space = math.gcd(space, local)
    if space < 1 or local % space:
        raise InputError(
            f"config.mesh.space is {space}; it must divide the {local} devices of a process."
        )
    ordered = [d for process in counts for d in _neighbours(by_process[process])]
    grid = np.array(ordered, object).reshape(-1, space)
    return Mesh(grid, ("data", "space"), (AxisType.Auto,) * 2)


def _neighbours(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """The devices of a process, each beside the one before: along one axis of chips and back."""

    def place(device: jax.Device) -> tuple[int, ...]:
        x, y, z = getattr(device, "coords", (0, 0, 0))
        y_walked = -y if z % 2 else y
        x_walked = -x if (y + z) % 2 else x
        return z, y_walked, x_walked, getattr(device, "core_on_chip", 0), device.id

    return sorted(devices, key=place)


@functools.cache
def process_rows(mesh: Mesh) -> tuple[int, ...]:
    """The processes of a mesh in the order of its rows.

    Raises:
        ValueError: if rows do not follow the processes, as those of `make_mesh` do.
    """
    owners = [device.process_index for device in mesh.devices.flat]
    processes = tuple(sorted(set(owners)))
    share = len(owners) // len(processes)
    if owners != [p for p in processes for _ in range(share)] or share % mesh.devices.shape[1]:
        raise ValueError(
            f"The rows of a mesh must follow the processes, got {owners}: use sharding.make_mesh."
        )
    return processes


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of the state: a copy on every device."""
    return NamedSharding(mesh, P())


def on(mesh: Mesh, function: Callable) -> Callable:
    """A function whose maps are split over a mesh: see `strips`."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return run


def by_rows(function: Callable, mesh: Mesh) -> Callable:
    """Wraps a function of batch leaves, [B, ...] each, in shard_map over the batch axis.

    For per-image functions that the compiler would not split by itself.
    """
    rows = P("data")
    return jax.shard_map(
        function, mesh=mesh, in_specs=rows, out_specs=rows, axis_names={"data"}, check_vma=False
    )


def batch_sharding(mesh: Mesh, name: str, *, split: bool = True) -> NamedSharding:
    """The sharding of an array of a batch: rows over "data", heights over "space".

    Args:
        mesh: the devices.
        name: name of the array.
        split: whether heights are split; else each device has whole images.
    """
    shared = split and name in ("image", "label")
    return NamedSharding(mesh, P("data", "space") if shared else P("data"))


def rounded_up(rows: int, mesh: Mesh) -> int:
    """The least number of rows, no smaller than the given one, that divides over the devices."""
    return arrays.round_up(rows, mesh.shape["data"])


def splits(mesh: Mesh, height: int) -> bool:
    """Whether images of a height are put on the devices in strips; else each device gets it whole.

    A program splits what it computes from them either way: see `strips`.
    """
    return height % int(mesh.shape["space"]) == 0


def put_batch(
    mesh: Mesh, rows: dict[str, np.ndarray], *, stacked: bool = False
) -> dict[str, jax.Array]:
    """The global batch on the devices, made of this process's rows.

    Args:
        mesh: the devices.
        rows: this process's rows.
        stacked: whether these are several batches, along a first axis that is not split.

    Raises:
        InputError: if the rows do not divide among the devices.
    """
    shardings = _shardings(mesh, rows, stacked)
    return {
        name: jax.make_array_from_process_local_data(shardings[name], array)
        for name, array in rows.items()
    }


def batch_shapes(
    mesh: Mesh, rows: dict[str, np.ndarray], *, stacked: bool = False
) -> dict[str, jax.ShapeDtypeStruct]:
    """The result of `put_batch` as ShapeDtypeStructs; raises the same errors."""
    processes, axis = len(process_rows(mesh)), int(stacked)
    shardings = _shardings(mesh, rows, stacked)
    return {
        name: jax.ShapeDtypeStruct(
            (*array.shape[:axis], processes * array.shape[axis], *array.shape[axis + 1 :]),
            array.dtype,
            sharding=shardings[name],
        )
        for name, array in rows.items()
    }


def _shardings(mesh: Mesh, rows: dict[str, np.ndarray], stacked: bool) -> dict[str, NamedSharding]:
    """Name of each array of a batch -> its sharding."""
    total, height = rows["image"].shape[int(stacked) :][:2]
    total *= len(process_rows(mesh))
    data, space = mesh.devices.shape
    if total % data:
        raise InputError(
            f"A batch of {total} images does not divide over {data} x {space} devices (data x "
            "space): change the batch size or config.mesh.space."
        )
    split, before = splits(mesh, height), (None,) * int(stacked)
    by_name = {name: batch_sharding(mesh, name, split=split) for name in rows}
    return {name: NamedSharding(mesh, P(*before, *one.spec)) for name, one in by_name.items()}


def local_rows(array: jax.Array) -> np.ndarray:
    """This process's rows of an array sharded like a batch: [B, H, ...] -> [B / processes, ...]."""
    pieces: dict[int, dict[int, np.ndarray]] = {}
    for shard in array.addressable_shards:
        start = [index.start or 0 for index in shard.index] + [0]
        pieces.setdefault(start[0], {})[start[1]] = np.asarray(shard.data)
    strips = [[row[start] for start in sorted(row)] for _, row in sorted(pieces.items())]
    return np.concatenate([np.concatenate(row, 1) if len(row) > 1 else row[0] for row in strips])
