"""Several training steps in one dispatch to the devices (`config.steps_per_dispatch`).

What a host does to send off a step then costs once for several: it counts where steps are short.
One program takes any number of steps up to the most, so that where a dispatch ends changes no bit.
Compilers may round a step in a loop otherwise than a step by itself, and XLA:CPU is slower in a
loop: with one step a dispatch there is none.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from segjax import sharding
from segjax.data.pipeline import Batch
from segjax.training.state import TrainState

Scalars = dict[str, jax.Array]
Step = Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Scalars]]


def length(config: ml_collections.ConfigDict, step: int) -> int:
    """The steps from `step` on that go in one dispatch: none is beyond one that is looked at.

    These are steps that the run logs, evaluates or saves, and the last.
    """
    every = config.every_steps
    ends = [each - (step - 1) % each for each in (every.log, every.eval, every.checkpoint)]
    steps: int = min(config.steps_per_dispatch, config.total_steps - step + 1, *ends)
    return steps


def several(
    ts: TrainState,
    batches: dict[str, jax.Array],
    first: jax.Array,
    count: jax.Array,
    *,
    step: Step,
    patience: int,
) -> tuple[TrainState, Scalars]:
    """Takes training steps one after another.

    It ends early after `patience` steps in a row that were not finite, as a run of single steps
    does, so that the state is that of the step which ends the run. A dispatch that was sent off
    before this was known takes no step: the state does not stand before its first.

    Args:
        ts: the state; donate it.
        batches: arrays [most, ...], a batch for each step.
        first: int32 [], the number of the first step.
        count: int32 [], the number of steps, at most `most`.
        step: takes one step.
        patience: see above.

    Returns:
        The state, and the scalars of `step` as arrays [most], zeros where no step was taken.
    """
    most = batches["position"].shape[0]
    scalars = jax.eval_shape(step, ts, jax.tree.map(lambda x: x[0], batches))[1]
    count = jnp.where(ts.step == first - 1, count, 0)

    def wanted(carry: tuple[jax.Array, TrainState, Scalars]) -> jax.Array:
        done, ts, _ = carry
        # A run that goes on may have skipped as many before: its first step is taken.
        return (done < count) & ((done == 0) | (ts.skipped < patience))

    def one(carry: tuple[jax.Array, TrainState, Scalars]) -> Any:
        done, ts, found = carry
        ts, new = step(ts, jax.tree.map(lambda x: x[done], batches))
        found = jax.tree.map(lambda all_, x: all_.at[done].set(x), found, new)
        return done + 1, ts, found

    zeros = jax.tree.map(lambda x: jnp.zeros((most, *x.shape), x.dtype), scalars)
    _, ts, found = jax.lax.while_loop(wanted, one, (jnp.int32(0), ts, zeros))
    return ts, found


def stacked(batches: Sequence[Batch], most: int) -> Batch:
    """The batches of a dispatch as one: arrays [most, ...]; the last fills up."""
    filled = [*batches, *[batches[-1]] * (most - len(batches))]
    return {name: np.stack([batch[name] for batch in filled]) for name in batches[0]}


def take(
    program: Callable,
    mesh: jax.sharding.Mesh,
    ts: TrainState,
    batches: Sequence[Batch],
    first: int,
    most: int,
) -> tuple[TrainState, Scalars]:
    """Dispatches the steps of some batches.

    Args:
        program: the compiled step, or `several` where `most` is above 1.
        mesh: the devices.
        ts: the state; it is donated.
        batches: this process's rows of each batch, at most `most`.
        first: the number of the first step.
        most: `config.steps_per_dispatch`.

    Returns:
        The state, and the scalars, as arrays [most] where `most` is above 1.
    """
    if most == 1:
        ts, scalars = program(ts, sharding.put_batch(mesh, batches[0]))
    else:
        placed = sharding.put_batch(mesh, stacked(batches, most), stacked=True)
        ts, scalars = program(ts, placed, np.int32(first), np.int32(len(batches)))
    return ts, scalars


def by_step(scalars: Scalars, count: int) -> list[dict[str, float]]:
    """The scalars of each of so many steps, from what `take` gives: waits for the devices."""
    found = {key: np.atleast_1d(values) for key, values in jax.device_get(scalars).items()}
    return [{key: float(values[i]) for key, values in found.items()} for i in range(count)]
