"""The steps of a run, one after another, with what watches and saves them."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import jax
from absl import logging

from segjax.data import pipeline
from segjax.errors import InputError
from segjax.runs import checkpoint, lock
from segjax.training import acceptance, dispatch, guards, layouts, monitor, state, stopping


@dataclasses.dataclass
class Stepper:
    """The steps of a run, with what watches and saves them."""

    accepted: acceptance.Accepted
    checkpoints: checkpoint.Checkpoints
    watcher: monitor.Monitor
    guard: guards.Guards
    held: lock.Lock
    # First step, scalars and batches of the last dispatch: reading those does not stall the device.
    _late: tuple[int, dispatch.Scalars, list[pipeline.Batch]] | None = None

    def train(
        self, ts: state.TrainState, batches: Iterator[pipeline.Batch], step_fn: Callable
    ) -> None:
        """Takes the steps that are left, or those until the run is asked to stop."""
        training, watcher, guard = self.accepted.training, self.watcher, self.guard
        config = training.config
        try:
            step = int(ts.step)
            while step < config.total_steps:
                first, count = step + 1, dispatch.length(config, step + 1)
                with watcher.meter.waiting():
                    taken = [next(batches) for _ in range(count)]
                ts, scalars = dispatch.take(
                    step_fn, training.mesh, ts, taken, first, config.steps_per_dispatch
                )
                self._settle()
                self._late, step = (first, scalars, taken), step + count
                ending, evaluating = guard.stopping(), stopping.due(config, step)
                if evaluating or ending or step % config.every_steps.checkpoint == 0:
                    self._settle()
                    with watcher.meter.paused(), guard.paused():
                        shown = layouts.plain(ts)
                        self._save(shown)
                        # One that is not done now is done first when the run goes on.
                        ending = ending or (evaluating and not self.evaluate(shown, step))
                        del shown  # on a GPU a second state
                guard.beat()
                if ending:
                    logging.info("Asked to stop: step %d is saved.", step)
                    return
                if evaluating and (why := watcher.stopped()):
                    logging.info("The run has %s.", why)
                    return
        except Exception as error:
            saved = self._rescue(ts)
            if not (saved and guard.asked and isinstance(error, InputError)):
                raise
            # Ctrl-C in a terminal ends worker processes, too.
            logging.warning("While the run was asked to stop: %s", error)

    def evaluate(self, ts: state.TrainState, step: int) -> bool:
        """Evaluates a saved state and stores its scores; False if it was asked to stop."""

        def interrupted() -> bool:
            self.held.check()
            return self.guard.stopping()

        scalars = self.watcher.evaluate(ts, step, interrupted)
        if scalars is None:
            logging.info("The evaluation of step %d was broken off and is done on resume.", step)
            return False
        self.checkpoints.record(step, scalars)
        return True

    def _settle(self) -> None:
        """Logs the steps of the last dispatch.

        Raises:
            InputError: if one was a non-finite step too many.
        """
        if self._late is None:
            return
        (first, on_device, batches), self._late = self._late, None
        found = dispatch.by_step(on_device, len(batches))
        for step, (scalars, batch) in enumerate(zip(found, batches, strict=True), first):
            self.watcher.step(step, scalars)
            if self.guard.broken(step, scalars, batch):
                raise self.guard.error(step)

    def _save(self, ts: state.TrainState) -> None:
        self.held.check()
        jax.block_until_ready(ts)
        start = time.monotonic()
        self.checkpoints.save(ts, int(ts.step), meta=self.accepted.meta)
        held = 1000 * (time.monotonic() - start)
        logging.info("Step %d goes to disk, which held the training for %.0f ms.", ts.step, held)

    def _rescue(self, ts: state.TrainState) -> bool:
        """Saves the last good state before an error ends the run; whether that went well."""
        # A save needs all processes, and arrays that were not given away to a step.
        if jax.process_count() > 1 or ts.step.is_deleted():
            return False
        try:
            with contextlib.suppress(InputError):
                self._settle()
            if self.watcher.log.broken:
                logging.warning("Steps that are not in the log are not saved, but taken again.")
                return False
            if int(ts.step) > 0:
                self._save(layouts.plain(ts))
                self.checkpoints.wait()
                logging.info("Step %d is saved before the run ends.", int(ts.step))
        except Exception as error:  # it must not hide the one that ends the run
            logging.error("The last step could not be saved: %.200s", error)
            return False
        return True
