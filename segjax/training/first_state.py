"""The state that a run begins with, and the replay of a saved batch from it."""

import contextlib
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
from absl import logging

from segjax import initial_weights
from segjax.runs import checkpoint
from segjax.training import acceptance, assembly, guards, state


def replay(accepted: acceptance.Accepted, workdir: pathlib.Path, path: pathlib.Path) -> None:
    """Reruns a saved batch; writes nothing, as the run may go on meanwhile."""
    best, directory = accepted.training.config.best, workdir / "checkpoints"
    if not checkpoint.steps_in(directory):
        guards.replay(accepted.training, initial_state(accepted.training, accepted.start), path)
        return
    checkpoints = checkpoint.Checkpoints(directory, **best, read_only=True)
    with contextlib.closing(checkpoints):
        guards.replay(accepted.training, restored_or_new(accepted, checkpoints), path)


def restored_or_new(
    accepted: acceptance.Accepted, checkpoints: checkpoint.Checkpoints
) -> state.TrainState:
    """The state of the newest checkpoint, or a new state."""
    training = accepted.training
    restored = checkpoints.restore(training.state_shapes())
    if restored is None:
        return initial_state(training, accepted.start)
    ts: state.TrainState = restored[0]
    logging.info("Resumed from step %d in %s.", int(ts.step), checkpoints.directory)
    return ts


def initial_state(
    training: assembly.Training, start: initial_weights.Start | None
) -> state.TrainState:
    """The state before the first step, with the weights of `start` if given."""
    ts = training.initial_state()
    if start is None:
        return ts
    params, batch_stats = start.load(ts.params, ts.batch_stats, model=training.model)
    # Copies: the state is donated, and two leaves must not share a buffer.
    ema = jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats}) if ts.ema else {}
    return dataclasses.replace(ts, params=params, batch_stats=batch_stats, ema=ema)
