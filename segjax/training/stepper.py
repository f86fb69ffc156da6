"""The steps of a run, one after another, with what watches and saves them."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import jax
from absl import logging

from segjax import sharding
from segjax.data import pipeline
from segjax.errors import InputError
from segjax.runs import checkpoint, lock
from segjax.training import acceptance, guards, monitor, state, stopping


@dataclasses.dataclass
class Stepper:
    """The steps of a run, with what watches and saves them."""

    accepted: acceptance.Accepted
    checkpoints: checkpoint.Checkpoints
    watcher: monitor.Monitor
    guard: guards.Guards
    held: lock.Lock
    # Step, scalars and batch of the previous step: reading those does not stall the device.
    _late: tuple[int, dict[str, jax.Array], pipeline.Batch] | None = None

    def train(
        self, ts: state.TrainState, batches: Iterator[pipeline.Batch], step_fn: Callable
    ) -> None:
        """Takes the steps that are left, or those until the run is asked to stop."""
        training, watcher, guard = self.accepted.training, self.watcher, self.guard
        config = training.config
        try:
            for step in range(int(ts.step) + 1, config.total_steps + 1):
                with watcher.meter.waiting():
                    batch = next(batches)
                ts, scalars = step_fn(ts, sharding.put_batch(training.mesh, batch))
                self._settle()
                self._late = step, scalars, batch
                ending, evaluating = guard.stopping(), stopping.due(config, step)
                if evaluating or ending or step % config.every_steps.checkpoint == 0:
                    self._settle()
                    with watcher.meter.paused(), guard.paused():
                        self._save(ts)
                        # One that is not done now is done first when the run goes on.
                        ending = ending or (evaluating and not self.evaluate(ts, step))
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
        """Logs the previous step.

        Raises:
            InputError: if it was one non-finite step too many.
        """
        if self._late is None:
            return
        (step, on_device, batch), self._late = self._late, None
        scalars = {key: float(value) for key, value in jax.device_get(on_device).items()}
        self.watcher.step(step, scalars)
        if self.guard.broken(step, scalars, batch):
            raise self.guard.error(step)

    def _save(self, ts: state.TrainState) -> None:
        self.held.check()
        self.checkpoints.save(ts, int(ts.step), meta=self.accepted.meta)

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
                self._save(ts)
                self.checkpoints.wait()
                logging.info("Step %d is saved before the run ends.", int(ts.step))
        except Exception as error:  # it must not hide the one that ends the run
            logging.error("The last step could not be saved: %.200s", error)
            return False
        return True
