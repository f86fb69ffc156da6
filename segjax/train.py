"""The training loop."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

import jax
import ml_collections
import numpy as np
from absl import logging

from segjax import checkpoint, evaluation, experiment, guards, monitor, state
from segjax.data import catalog, pipeline
from segjax.errors import InputError


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
    experiment.check_workdir(workdir, config)
    dataset = catalog.load(**config.data)
    train = experiment.open_split(dataset, config, config.train_split)
    val = experiment.open_split(dataset, config, config.eval.split)
    weights = experiment.weights_of(config, train.scan)
    parts = experiment.assemble(config, dataset.spec, weights)
    how = evaluation.protocol(parts, config.eval.split, val.scan.sizes)
    meta = {
        "spec": dataset.spec.to_json(),
        "class_weights": weights,
        "protocol": how,
        "data": {"train": train.scan.fingerprint, "eval": val.scan.fingerprint},
        "versions": experiment.versions(),
    }
    with contextlib.ExitStack() as stack:
        checkpoints = experiment.open_checkpoints(config, workdir)
        stack.callback(checkpoints.close)
        ts = _first_state(parts, checkpoints, meta)
        if replay:
            guards.replay(parts, ts, pathlib.Path(replay))
            return
        if int(ts.step) >= config.total_steps:
            logging.info("Nothing to do: the run is finished. Evaluate it with segjax.evaluate.")
            return
        step_fn = _compile(parts, ts, train, val, how)
        watcher = monitor.Monitor(parts, val, how, workdir, step=int(ts.step))
        stack.callback(watcher.close)
        stopping = stack.enter_context(guards.preemption(checkpoints))
        watchdog = stack.enter_context(guards.Watchdog())
        nonfinite = guards.NonFinite(workdir, config.stop.skipped)
        _loop(parts, ts, train, step_fn, checkpoints, meta, watcher, stopping, watchdog, nonfinite)


def _loop(
    parts: experiment.Experiment,
    ts: state.TrainState,
    train: experiment.Split,
    step_fn: Callable,
    checkpoints: checkpoint.Checkpoints,
    meta: dict,
    watcher: monitor.Monitor,
    stopping: Callable[[int], bool],
    watchdog: guards.Watchdog,
    nonfinite: guards.NonFinite,
) -> None:
    config, every = parts.config, parts.config.every_steps
    batches = _batches(parts, train, int(ts.step))
    late = None  # step, scalars and batch of the step before: reading them never stalls the device

    def settle() -> None:
        step, scalars, batch = late
        scalars = {key: float(value) for key, value in jax.device_get(scalars).items()}
        watcher.step(step, scalars)
        if nonfinite.over(step, int(scalars["skipped"]), batch):
            checkpoints.save(ts, int(ts.step), meta, None)
            raise nonfinite.error(step)

    for step in range(int(ts.step) + 1, config.total_steps + 1):
        with watcher.meter.waiting():
            batch = next(batches)
        ts, scalars = step_fn(ts, state.put_batch(parts.mesh, batch))
        watcher.meter.step(config.batch_size)
        if late is not None:
            settle()
        late = step, scalars, batch
        asked = stopping(step)
        evaluating = step % every.eval == 0 or step == config.total_steps
        if evaluating or asked or step % every.checkpoint == 0:
            settle()
            late = None
            with watcher.meter.paused(), watchdog.paused():
                metrics = watcher.evaluate(ts, step) if evaluating else None
                checkpoints.save(ts, step, meta, metrics)
        watchdog.beat()
        if asked:
            logging.info("Asked to stop: step %d is saved.", step)
            return
        if evaluating and watcher.should_stop():
            return


def _first_state(
    parts: experiment.Experiment, checkpoints: checkpoint.Checkpoints, meta: dict
) -> state.TrainState:
    """The newest checkpoint's state, or a new one."""
    found = checkpoints.restore(parts.state_shapes())
    if found is None:
        return parts.initial_state()
    ts, before = found
    if before["data"] != meta["data"]:
        raise InputError(
            f"{checkpoints.directory}: the run was trained on other data: "
            f"{before['data']} there, {meta['data']} now. Give another --workdir."
        )
    logging.info("Resumed from step %d in %s.", int(ts.step), checkpoints.directory)
    return ts


def _canvas(train: experiment.Split) -> tuple[int, int]:
    height, width = train.scan.sizes.max(axis=0)
    return int(height), int(width)


def _batches(
    parts: experiment.Experiment, train: experiment.Split, first_step: int
) -> Iterator[pipeline.Batch]:
    config = parts.config
    return pipeline.train_batches(
        train.source,
        canvas=_canvas(train),
        fill=config.preprocess.mean,
        batch_size=config.batch_size,
        seed=config.seed,
        first_step=first_step,
        process=jax.process_index(),
        processes=jax.process_count(),
        threads=config.loader.threads,
        workers=config.loader.workers,
        prefetch=config.loader.prefetch,
    )


def _compile(
    parts: experiment.Experiment,
    ts: state.TrainState,
    train: experiment.Split,
    val: experiment.Split,
    how: dict,
) -> Callable:
    """Compiles both programs before step 0, so that memory runs out now or never."""
    config, processes = parts.config, jax.process_count()
    rows = pipeline.nothing(_canvas(train), config.preprocess.mean, config.batch_size // processes)
    step_fn = parts.train_step.lower(ts, state.put_batch(parts.mesh, rows)).compile()
    logging.info(
        "%d parameters; %d images a device and step; training step: %s.",
        sum(np.size(leaf) for leaf in jax.tree.leaves(ts.params)),
        config.batch_size // parts.mesh.devices.shape[0],
        experiment.memory(step_fn),
    )
    for canvas in sorted({canvas for canvas, _ in evaluation.plan_of(how, val.scan.sizes)}):
        rows = pipeline.nothing(canvas, how["fill"], how["batch_size"] // processes)
        out = parts.eval_step(ts.params, ts.batch_stats, state.put_batch(parts.mesh, rows))
        jax.block_until_ready(out)
    return step_fn
