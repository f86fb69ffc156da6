"""The training loop."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging

from segjax import initial_weights, sharding
from segjax.data import pipeline
from segjax.network import Network
from segjax.runs import checkpoint, run_folder
from segjax.training import acceptance, guards, inputs, monitor, state
from segjax.training.assembly import Training


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path, replay: str = "") -> None:
    """Trains a network until `config.total_steps`, resuming from `workdir` if it has checkpoints.

    Args:
        config: the recipe.
        workdir: the run folder.
        replay: path of a saved batch to rerun under NaN checks instead of training; "" to train.

    Raises:
        InputError: if the config or data are not allowed, the folder belongs to another config, the
            disk is full, or the loss stays non-finite.
    """
    accepted = acceptance.accept(config, workdir)
    training = accepted.training
    run_folder.claim(workdir, config)
    with contextlib.ExitStack() as stack:
        checkpoints = checkpoint.Checkpoints(workdir / "checkpoints", **config.best)
        stack.callback(checkpoints.close)
        ts = _first_state(accepted, checkpoints)
        if replay:
            guards.replay(training, ts, pathlib.Path(replay))
            return
        if int(ts.step) >= config.total_steps:
            logging.info("Nothing to do: the run is finished. Evaluate it with segjax.evaluate.")
            return
        # All is compiled before the first step, so that too little memory shows at the start.
        step = inputs.compiled(training, accepted.step, ts)
        evaluator = accepted.evaluator
        evaluator.compile(Network(ts.params, ts.batch_stats, training.model))
        data = accepted.val.scan.fingerprint
        watcher = monitor.Monitor(training, evaluator, data, workdir, step=int(ts.step))
        stack.callback(watcher.close)
        guard = stack.enter_context(guards.Guards(workdir, config.stop.skipped, checkpoints))
        save = functools.partial(checkpoints.save, meta=accepted.meta)
        batches = inputs.train_batches(training, accepted.train, first_step=int(ts.step))
        _loop(training, ts, batches, step, save, watcher, guard)


def _loop(
    training: Training,
    ts: state.TrainState,
    batches: Iterator[pipeline.Batch],
    step_fn: Callable,
    save: Callable,
    watcher: monitor.Monitor,
    guard: guards.Guards,
) -> None:
    config, every = training.config, training.config.every_steps
    # Step, scalars and batch of the previous step: reading those does not stall the device.
    late: tuple[int, dict[str, jax.Array], pipeline.Batch] | None = None

    def settle(step: int, on_device: dict[str, jax.Array], batch: pipeline.Batch) -> None:
        scalars = {key: float(value) for key, value in jax.device_get(on_device).items()}
        watcher.step(step, scalars)
        if guard.broken(step, scalars, batch):
            save(ts, int(ts.step))
            raise guard.error(step)

    for step in range(int(ts.step) + 1, config.total_steps + 1):
        with watcher.meter.waiting():
            batch = next(batches)
        ts, scalars = step_fn(ts, sharding.put_batch(training.mesh, batch))
        if late is not None:
            settle(*late)
        late = step, scalars, batch
        stopping = guard.stopping(step)
        evaluating = step % every.eval == 0 or step == config.total_steps
        if evaluating or stopping or step % every.checkpoint == 0:
            settle(*late)
            late = None
            with watcher.meter.paused(), guard.paused():
                metrics = watcher.evaluate(ts, step) if evaluating else None
                save(ts, step, metrics=metrics)
                watcher.draw()
        guard.beat()
        if stopping:
            logging.info("Asked to stop: step %d is saved.", step)
            return
        if evaluating and watcher.should_stop():
            return


def _first_state(
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


def initial_state(training: Training, start: initial_weights.Start | None) -> state.TrainState:
    """The state before the first step, with the weights of `start` if given."""
    ts = training.initial_state()
    if start is None:
        return ts
    params, batch_stats = start.load(ts.params, ts.batch_stats, model=training.model)
    # Copies: the state is donated, and two leaves must not share a buffer.
    ema = jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats}) if ts.ema else {}
    return dataclasses.replace(ts, params=params, batch_stats=batch_stats, ema=ema)
