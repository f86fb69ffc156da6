"""The training loop."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator

import jax
import ml_collections
from absl import logging

from segjax import initial_weights, sharding
from segjax.data import catalog, pipeline
from segjax.errors import InputError
from segjax.evaluation import evaluator as evaluation
from segjax.runs import checkpoint, run_folder
from segjax.training import assembly, guards, monitor, state


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path, replay: str = "") -> None:
    """Trains a network to `config.total_steps`, from where `workdir` left it.

    Args:
        config: the recipe.
        workdir: the run folder.
        replay: a batch under `workdir` to run again under NaN checks, instead of training.

    Raises:
        InputError: on bad data, a folder of another config, a full disk, or a loss that stays
            non-finite.
    """
    start = initial_weights.start_of(config)
    initial_weights.adopt_preprocess(config, start, workdir)
    run_folder.check_workdir(workdir, config)
    dataset = catalog.load(**config.data)
    train = assembly.open_split(dataset, config, config.train_split)
    val = assembly.open_split(dataset, config, config.eval.split)
    weights = assembly.weights_of(config, train.scan)
    parts = assembly.assemble(config, dataset.spec, weights)
    how = evaluation.protocol(parts, config.eval.split, val.scan.sizes)
    meta = {
        "spec": dataset.spec.to_json(),
        "class_weights": weights,
        "protocol": how,
        "data": {"train": train.scan.fingerprint, "eval": val.scan.fingerprint},
        "versions": run_folder.versions(),
    }
    with contextlib.ExitStack() as stack:
        checkpoints = assembly.open_checkpoints(config, workdir)
        stack.callback(checkpoints.close)
        ts = _first_state(parts, checkpoints, meta, start)
        if replay:
            guards.replay(parts, ts, pathlib.Path(replay))
            return
        if int(ts.step) >= config.total_steps:
            logging.info("Nothing to do: the run is finished. Evaluate it with segjax.evaluate.")
            return
        evaluator = evaluation.Evaluator(parts, val.source, val.scan.sizes, how)
        step_fn = assembly.compile_steps(parts, ts, train, evaluator.step, evaluator.canvases())
        watcher = monitor.Monitor(evaluator, val.scan.fingerprint, workdir, step=int(ts.step))
        stack.callback(watcher.close)
        guard = stack.enter_context(guards.Guards(workdir, config.stop.skipped, checkpoints))
        save = functools.partial(checkpoints.save, meta=meta)
        batches = assembly.train_batches(parts, train, first_step=int(ts.step))
        _loop(parts, ts, batches, step_fn, save, watcher, guard)


def _loop(
    parts: assembly.Experiment,
    ts: state.TrainState,
    batches: Iterator[pipeline.Batch],
    step_fn: Callable,
    save: Callable,
    watcher: monitor.Monitor,
    guard: guards.Guards,
) -> None:
    config, every = parts.config, parts.config.every_steps
    late = None  # step, scalars and batch of the step before: reading them never stalls the device

    def settle() -> None:
        step, scalars, batch = late
        scalars = {key: float(value) for key, value in jax.device_get(scalars).items()}
        watcher.step(step, scalars)
        if guard.broken(step, scalars, batch):
            save(ts, int(ts.step))
            raise guard.error(step)

    for step in range(int(ts.step) + 1, config.total_steps + 1):
        with watcher.meter.waiting():
            batch = next(batches)
        ts, scalars = step_fn(ts, sharding.put_batch(parts.mesh, batch))
        if late is not None:
            settle()
        late = step, scalars, batch
        stopping = guard.stopping(step)
        evaluating = step % every.eval == 0 or step == config.total_steps
        if evaluating or stopping or step % every.checkpoint == 0:
            settle()
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
    parts: assembly.Experiment,
    checkpoints: checkpoint.Checkpoints,
    meta: dict,
    start: initial_weights.Start | None,
) -> state.TrainState:
    """The newest checkpoint's state, or a new one."""
    found = checkpoints.restore(parts.state_shapes())
    if found is None:
        return initial_weights.initial_state(parts, start)
    ts, before = found
    if before["data"] != meta["data"]:
        raise InputError(
            f"{checkpoints.directory}: the run was trained on other data: "
            f"{before['data']} there, {meta['data']} now. Give another --workdir."
        )
    logging.info("Resumed from step %d in %s.", int(ts.step), checkpoints.directory)
    return ts
