"""The train state: all that a step changes, and where it begins."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding

from segjax import sharding as shardings

Draw = Callable[[int | jax.Array], tuple[Any, Any]]
"""Seed -> parameters and batch statistics, see `Model.draw`."""


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


def create(
    draw: Draw,
    tx: optax.GradientTransformation,
    *,
    seed: int,
    ema: bool,
    mesh: Mesh,
) -> TrainState:
    """The state before the first step, the same for the same seed.

    Args:
        draw: of the model.
        tx: of the optimiser.
        seed: of the weights.
        ema: whether averaged weights are kept.
        mesh: the devices, to all of which the state is copied.
    """
    # Not under one jit: layers share the programs that draw them (`layers.he_normal`).
    sharding = shardings.replicated(mesh)
    first = _first(*draw(seed), tx, ema)
    placed: TrainState = jax.tree.map(lambda x: _put(x, sharding), first)
    return placed


def shapes(
    params: Any,
    batch_stats: Any,
    tx: optax.GradientTransformation,
    *,
    ema: bool,
    mesh: Mesh,
) -> TrainState:
    """What `create` would give, as ShapeDtypeStructs with shardings: the target of a restore.

    Args:
        params, batch_stats: of `Model.shapes`.
        tx, ema, mesh: as of `create`.
    """
    sharding = shardings.replicated(mesh)
    target: TrainState = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(lambda params, stats: _first(params, stats, tx, ema), params, batch_stats),
    )
    return target


def _put(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """A copy of its own: the state is donated, and two leaves must not share a buffer."""
    copy: jax.Array = jax.make_array_from_process_local_data(sharding, np.array(x))
    return copy


def _first(
    params: Any, batch_stats: Any, tx: optax.GradientTransformation, ema: bool
) -> TrainState:
    averaged = {"params": params, "batch_stats": batch_stats} if ema else {}
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, batch_stats, tx.init(params), averaged, zero)
