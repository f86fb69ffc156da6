"""The train state, and its initial value."""

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
"""Seed -> (parameters, batch statistics), see `Model.draw`."""


@flax.struct.dataclass
class TrainState:
    """The arrays that a training step changes.

    Attributes:
        step: int32 [], number of steps including skipped ones; also the number of batches read.
        params, batch_stats: nested dicts of float32 arrays.
        opt_state: state of the optax transformation.
        ema: {"params": ..., "batch_stats": ...} averaged over steps, or {} without averaging.
        skipped: int32 [], number of non-finite steps in a row.
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
    """The state before the first step; it depends only on the seed.

    Args:
        draw: `Model.draw`.
        tx: `Optimizer.tx`.
        seed: seed of the weights.
        ema: whether to keep averaged weights.
        mesh: devices; the state is replicated on all of them.
    """
    # Not under a single jit: layers share the programs that draw weights (`layers.he_normal`).
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
    """Result of `create` as ShapeDtypeStructs with shardings: the target of a restore.

    Args:
        params, batch_stats: result of `Model.shapes`.
        tx, ema, mesh: see `create`.
    """
    sharding = shardings.replicated(mesh)
    target: TrainState = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(lambda params, stats: _first(params, stats, tx, ema), params, batch_stats),
    )
    return target


def _put(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """A separate copy, because the donated state must not share buffers between leaves."""
    copy: jax.Array = jax.make_array_from_process_local_data(sharding, np.array(x))
    return copy


def _first(
    params: Any, batch_stats: Any, tx: optax.GradientTransformation, ema: bool
) -> TrainState:
    averaged = {"params": params, "batch_stats": batch_stats} if ema else {}
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, batch_stats, tx.init(params), averaged, zero)
