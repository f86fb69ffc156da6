"""The mesh, the shardings and the train state."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from segjax.errors import InputError


@flax.struct.dataclass
class TrainState:
    """All that a step changes, as arrays.

    Attributes:
        step: int32 [], updates tried so far; also the position in the data, in batches.
        params, batch_stats: nested dicts of float32 arrays.
        opt_state: of the optax transformation.
        ema: {"params": ..., "batch_stats": ...} averaged over steps, or {} where none is kept.
        skipped: int32 [], non-finite steps in a row.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    skipped: jax.Array

    def weights(self, which: str) -> tuple[Any, Any]:
        """Parameters and batch statistics, "raw" or "ema" (averaged).

        Raises:
            InputError: if no averaged ones are kept.
        """
        if which == "raw":
            return self.params, self.batch_stats
        if not self.ema:
            raise InputError("The run keeps no averaged weights (config.ema_decay is 0).")
        return self.ema["params"], self.ema["batch_stats"]


def make_mesh(space: int, devices: list[jax.Device] | None = None) -> Mesh:
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
    """A function of leaves of a batch, [B, ...] each, where every device works on its own rows.

    For what is of single images and would not be split among devices by itself; devices that share
    an image all do the same.
    """
    rows = P("data")
    return jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)


def batch_sharding(mesh: Mesh, name: str) -> NamedSharding:
    """The sharding of one leaf of a batch: rows over "data", image height over "space"."""
    return NamedSharding(mesh, P("data", "space") if name in ("image", "label") else P("data"))


def put_batch(mesh: Mesh, rows: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's rows of a batch -> the global batch, on the devices.

    Raises:
        InputError: if rows or height do not divide among the devices.
    """
    data, space = mesh.devices.shape
    total = rows["image"].shape[0] * jax.process_count()
    height = rows["image"].shape[1]
    if total % data or height % space:
        raise InputError(
            f"A batch of {total} images of height {height} does not divide over {data} x {space} "
            "devices (data x space): change the batch size, the canvas or config.mesh.space."
        )
    return {
        name: jax.make_array_from_process_local_data(batch_sharding(mesh, name), array)
        for name, array in rows.items()
    }


def local_rows(array: jax.Array) -> np.ndarray:
    """This process's rows of an array sharded like a batch: [B, H, ...] -> [B / processes, ...]."""
    pieces: dict[int, dict[int, np.ndarray]] = {}
    for shard in array.addressable_shards:
        start = [index.start or 0 for index in shard.index] + [0]
        pieces.setdefault(start[0], {})[start[1]] = np.asarray(shard.data)
    strips = [[row[start] for start in sorted(row)] for _, row in sorted(pieces.items())]
    return np.concatenate([np.concatenate(row, 1) if len(row) > 1 else row[0] for row in strips])


def graphs(build: Callable[[nnx.Rngs], nnx.Module]) -> tuple[Any, Any]:
    """The model's training graph and its evaluation graph; both take the same arrays."""
    model = nnx.eval_shape(lambda: build(keys(0)))  # no memory, no compute
    frozen = nnx.view(model, use_running_average=True, deterministic=True, raise_if_not_found=False)
    return nnx.graphdef(model), nnx.graphdef(frozen)


def sampling_graph(build: Callable[[nnx.Rngs], nnx.Module]) -> Any:
    """The model's graph for passes that dropout stays on in; norms take running averages."""
    model = nnx.eval_shape(lambda: build(keys(0)))
    sampling = nnx.view(model, use_running_average=True, raise_if_not_found=False)
    return nnx.graphdef(sampling)


def initial_arrays(build: Callable[[nnx.Rngs], nnx.Module], seed: jax.Array) -> tuple[Any, Any]:
    """Freshly drawn parameters and batch statistics, as nested dicts of arrays."""
    # Exactly these two kinds: any other variable, such as a layer's own rngs, raises.
    model = build(keys(seed))
    _, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return plain(params), plain(batch_stats)


class _Counted(nnx.RngStream):
    """The keys of nnx, but counted in Python.

    nnx counts in an array, and asks it for its sharding at every draw. In a trace the answer is an
    exception whose text jax makes by going through all that was traced before: most of the time
    that it takes to build a deep network.
    """

    def __init__(self, key: jax.Array, *, tag: str):
        super().__init__(key, tag=tag)
        self.drawn = 0

    def __call__(self) -> jax.Array:
        key = jax.random.fold_in(self.key[...], self.drawn)
        self.drawn += 1
        return key


def keys(seed: jax.Array) -> nnx.Rngs:
    """`nnx.Rngs(seed)` for building a network: the same keys, fast in a trace."""
    key = jax.random.key(seed)
    rngs = nnx.Rngs(key)
    rngs.default = _Counted(key, tag="default")
    return rngs


def plain(state: Any) -> Any:
    """An nnx state as nested dicts with string keys and array leaves.

    Orbax and safetensors name leaves by strings; layers in an `nnx.List` have whole numbers.
    """

    def rename(tree):
        if isinstance(tree, dict):
            return {str(key): rename(value) for key, value in tree.items()}
        return tree

    return rename(nnx.to_pure_dict(nnx.as_pure(state)))


def merge(graph: Any, params: Any, batch_stats: Any) -> nnx.Module:
    """The inverse of splitting with `plain`: a module whose variables hold these arrays."""

    def rename(tree):
        if isinstance(tree, dict):
            return {int(key) if key.isdigit() else key: rename(v) for key, v in tree.items()}
        return tree

    return nnx.merge(graph, nnx.State(rename(params)), nnx.State(rename(batch_stats)))


def create(
    build: Callable[[nnx.Rngs], nnx.Module],
    tx: optax.GradientTransformation,
    *,
    seed: int,
    ema: bool,
    mesh: Mesh,
) -> TrainState:
    """The state before the first step, replicated on `mesh`, the same for the same seed."""
    # Not under one jit: layers share the programs that draw them (`layers.he_normal`).
    return jax.tree.map(lambda x: _put(x, replicated(mesh)), _init(build, tx, ema)(seed))


def shapes(
    build: Callable[[nnx.Rngs], nnx.Module],
    tx: optax.GradientTransformation,
    *,
    ema: bool,
    mesh: Mesh,
) -> TrainState:
    """What `create` would give, as ShapeDtypeStructs with shardings: the target of a restore."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(lambda: _init(build, tx, ema)(0)),
    )


def _put(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """A copy of its own: the state is donated, and two leaves must not share a buffer."""
    return jax.make_array_from_process_local_data(sharding, np.array(x))


def _init(build, tx, ema: bool) -> Callable[[int], TrainState]:
    def init(seed: int) -> TrainState:
        params, batch_stats = initial_arrays(build, seed)
        averaged = {"params": params, "batch_stats": batch_stats} if ema else {}
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, params, batch_stats, tx.init(params), averaged, zero)

    return init
