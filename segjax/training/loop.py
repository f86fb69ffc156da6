"""The training loop."""

import contextlib
import pathlib

import jax
import ml_collections
from absl import logging

from segjax.network import Network
from segjax.runs import checkpoint, data_record, event_log, lock, orders, run_folder
from segjax.training import (
    acceptance,
    assembly,
    first_state,
    guards,
    inputs,
    layouts,
    monitor,
    stepper,
    stopping,
)


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path, replay: str = "") -> None:
    """Trains a network until `config.total_steps`, resuming from `workdir` if it has checkpoints.

    SIGTERM, Ctrl-C and SIGHUP save and end; a second signal ends at once.

    Args:
        config: the recipe.
        workdir: the run folder.
        replay: path of a saved batch to rerun under NaN checks instead of training; "" to train.

    Raises:
        InputError: if the config or data are not allowed, the folder belongs to another config or
            is in use, the disk is full, or the loss stays non-finite.
        KeyboardInterrupt, SystemExit: after Ctrl-C and SIGHUP, when all is saved.
    """
    with orders.obeyed(alone=jax.process_count() == 1) as order:
        if replay:
            first_state.replay(acceptance.accept(config, workdir), workdir, pathlib.Path(replay))
            return
        lock.refuse_if_held(workdir)  # before a long look at the data
        accepted = acceptance.accept(config, workdir)
        with lock.held(workdir) as held:
            run_folder.check(workdir, config)  # another run may have been here meanwhile
            _run(accepted, workdir, held, order)


def _run(
    accepted: acceptance.Accepted, workdir: pathlib.Path, held: lock.Lock, order: orders.Orders
) -> None:
    training, config = accepted.training, accepted.training.config
    with contextlib.ExitStack() as stack:
        before = run_folder.claim(workdir, config)
        data_record.write(workdir, {"train": accepted.train.scan, "eval": accepted.val.scan})
        checkpoints = stack.enter_context(
            checkpoint.Checkpoints(workdir / "checkpoints", **config.best)
        )
        ts = first_state.restored_or_new(accepted, checkpoints)
        first = int(ts.step)
        if before is not None and before != config.total_steps:
            logging.info("%s", assembly.growth(training, before, first))
        # A run that was ended between a save and the end of its evaluation has that to do first.
        missing = stopping.due(config, first) and checkpoints.metrics(first) is None
        if not missing and (why := _nothing_to_do(config, workdir, first)):
            logging.info("Nothing to do: %s.", why)
            return
        evaluator = accepted.evaluator
        data = accepted.val.scan.fingerprint
        watcher = stack.enter_context(
            monitor.Monitor(
                training,
                evaluator,
                data,
                workdir,
                operations=accepted.operations.products,
                step=first,
            )
        )
        guard = stack.enter_context(
            guards.Guards(workdir, config.stop.skipped, checkpoints, order, step=first)
        )
        steps = stepper.Stepper(accepted, checkpoints, watcher, guard, held)
        if missing:
            order.work_begins()
            if not steps.evaluate(ts, first):
                return
            if why := _nothing_to_do(config, workdir, first):
                logging.info("Nothing more to do: %s.", why)
                return
        # All is compiled before the first step, so that too little memory shows at the start.
        step = inputs.compiled(training, accepted.step, ts)
        evaluator.compile(Network(ts.params, ts.batch_stats, training.model))
        if not missing:
            order.work_begins()
        batches = inputs.train_batches(training, accepted.train, first_step=first)
        stack.callback(batches.close)
        ts = layouts.laid_out(ts, step)  # in place of the plain one, which is as large
        steps.train(ts, batches, step)
        checkpoints.wait()  # before the last curves are drawn


def _nothing_to_do(config: ml_collections.ConfigDict, workdir: pathlib.Path, step: int) -> str:
    """Why a run that has taken and evaluated a step ends there; "" if it goes on."""
    if step >= config.total_steps:
        return "the run is finished; evaluate it with segjax evaluate"
    events = (event for event in event_log.read(workdir) if event["step"] <= step)
    return stopping.Watched(config.stop.metric, events).stopped(config.stop) or ""
