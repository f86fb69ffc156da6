"""The device mesh, and the sharding of batches and state."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from segjax.errors import InputError


def make_mesh(space: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh ("data", "space") over all devices, or those given.

    Raises:
        InputError: if `space` does not divide the devices of one process.
    """
    devices = jax.devices() if devices is None else devices
    local = sum(device.process_index == devices[0].process_index for device in devices)
    if space < 1 or local % space:
        raise InputError(
            f"config.mesh.space is {space}; it must divide the {local} devices of a process."
        )
    shape = (len(devices) // space, space)
    return jax.make_mesh(shape, ("data", "space"), (AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of the state: a copy on every device."""
    return NamedSharding(mesh, P())


def by_rows(function: Callable, mesh: Mesh) -> Callable:
    """Wraps a function of batch leaves, [B, ...] each, in shard_map over the batch axis.

    For per-image functions that the compiler would not split by itself; devices that share an image
    compute the same.
    """
    rows = P("data")
    return jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)


def batch_sharding(mesh: Mesh, name: str) -> NamedSharding:
    """The sharding of one leaf of a batch: rows over "data", image height over "space"."""
    return NamedSharding(mesh, P("data", "space") if name in ("image", "label") else P("data"))


def put_batch(mesh: Mesh, rows: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """The global batch on the devices, made of this process's rows.

    Raises:
        InputError: if rows or height do not divide among the devices.
    """
    _check_divides(mesh, rows)
    return {
        name: jax.make_array_from_process_local_data(batch_sharding(mesh, name), array)
        for name, array in rows.items()
    }


def batch_shapes(mesh: Mesh, rows: dict[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
    """The result of `put_batch` as ShapeDtypeStructs; raises the same errors."""
    _check_divides(mesh, rows)
    processes = jax.process_count()
    return {
        name: jax.ShapeDtypeStruct(
            (processes * len(array), *array.shape[1:]),
            array.dtype,
            sharding=batch_sharding(mesh, name),
        )
        for name, array in rows.items()
    }


def _check_divides(mesh: Mesh, rows: dict[str, np.ndarray]) -> None:
    data, space = mesh.devices.shape
    total = rows["image"].shape[0] * jax.process_count()
    height = rows["image"].shape[1]
    if total % data or height % space:
        raise InputError(
            f"A batch of {total} images of height {height} does not divide over {data} x {space} "
            "devices (data x space): change the batch size, the canvas or config.mesh.space."
        )


def local_rows(array: jax.Array) -> np.ndarray:
    """This process's rows of an array sharded like a batch: [B, H, ...] -> [B / processes, ...]."""
    pieces: dict[int, dict[int, np.ndarray]] = {}
    for shard in array.addressable_shards:
        start = [index.start or 0 for index in shard.index] + [0]
        pieces.setdefault(start[0], {})[start[1]] = np.asarray(shard.data)
    strips = [[row[start] for start in sorted(row)] for _, row in sorted(pieces.items())]
    return np.concatenate([np.concatenate(row, 1) if len(row) > 1 else row[0] for row in strips])
