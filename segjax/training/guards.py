"""What can happen to a run, and what is done about it: preemption, a hang, numbers that break."""

import contextlib
import dataclasses
import faulthandler
import inspect
import pathlib
import shlex
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator

import jax
import numpy as np
from absl import logging

from segjax import files, sharding
from segjax.errors import InputError
from segjax.models import crf_rnn
from segjax.runs import checkpoint
from segjax.training import state
from segjax.training.assembly import Training

_HANG_FACTOR = 20  # of the median step, before the stacks are printed
_HANG_SECONDS = 120  # and at least this long


class Guards:
    """Listens for the order to stop, watches the clock, keeps broken batches. A context manager.

    One process listens for SIGTERM itself. With several, JAX's own service hears it and tells all
    of them at the same step; a handler of ours would disable that.

    Args:
        workdir: the run folder; batches of non-finite steps go to nonfinite/.
        patience: how many non-finite steps in a row end the run.
        checkpoints: of the run; they know of preemption where there are several processes.
    """

    def __init__(self, workdir: pathlib.Path, patience: int, checkpoints: checkpoint.Checkpoints):
        self._folder = workdir / "nonfinite"
        self._patience = patience
        self._checkpoints = checkpoints
        self._alone = jax.process_count() == 1
        # Python delivers signals to the main thread alone; a notebook may train in another.
        self._listens = self._alone and threading.current_thread() is threading.main_thread()
        self._asked = False
        self._wanted = 0.0  # of the non-finite steps in a row: see `crf_rnn.cause`
        self._took: list[float] = []
        self._last = time.monotonic()

    def __enter__(self) -> "Guards":
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def stopping(self, step: int) -> bool:
        """Whether the run must save and leave after this step; the same in all processes."""
        return self._asked if self._alone else self._checkpoints.reached_preemption(step)

    def beat(self) -> None:
        """A step is done. If the next takes far longer than the median, all stacks are printed."""
        now = time.monotonic()
        self._took = [*self._took[-50:], now - self._last]
        self._last = now
        limit = max(_HANG_SECONDS, _HANG_FACTOR * statistics.median(self._took))
        # Not sys.stderr: a notebook's has no file.
        if sys.__stderr__ is not None:
            faulthandler.dump_traceback_later(limit, exit=False, file=sys.__stderr__)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time inside belongs to no step."""
        faulthandler.cancel_dump_traceback_later()
        yield
        self._last = time.monotonic()

    def broken(self, step: int, scalars: dict[str, float], batch: dict[str, np.ndarray]) -> bool:
        """Saves the batch of a skipped step; True once there were too many in a row.

        Args:
            step: the step.
            scalars: of `steps.train_step`: `skipped`, non-finite steps in a row, itself included,
                which leave the weights as they were; and what a CRF lacked.
            batch: its rows, those of this process.
        """
        if not scalars["skipped"]:
            self._wanted = 0.0
            return False
        self._wanted = max(self._wanted, scalars.get("crf_vertices_wanted", 0.0))
        path = self._path(step)
        files.write_npz(path, step=step, **batch)
        logging.warning(
            "Step %d was not finite and is skipped; its batch: %s%s", step, path, self._cause()
        )
        return scalars["skipped"] >= self._patience

    def error(self, step: int) -> InputError:
        """What the run ends with, and how to look at it."""
        again = [word for word in sys.argv[1:] if not word.startswith("--replay")]
        command = shlex.join(
            ["python", "-m", "segjax.main", *again, f"--replay={self._path(step)}"]
        )
        if not any(word.lstrip("-").startswith("config") for word in again):  # not a verb's
            command = f"segjax.training.loop.run(config, workdir, replay={str(self._path(step))!r})"
        return InputError(
            f"Loss or gradient was not finite for {self._patience} steps in a row, up to step "
            f"{step}; the weights are those before them.{self._cause()} Look at it with: {command}"
        )

    def _cause(self) -> str:
        """What is known of it, after a space."""
        return f" {crf_rnn.cause(self._wanted)}" if self._wanted else ""

    def _path(self, step: int) -> pathlib.Path:
        process = "" if self._alone else f"-process{jax.process_index()}"
        return self._folder / f"step-{step:07d}{process}.npz"


def replay(training: Training, ts: state.TrainState, path: pathlib.Path) -> None:
    """Runs a saved batch again under NaN checks, and says which operation broke.

    Raises:
        InputError: if there is no such file.
    """
    if not path.exists():
        raise InputError(f"--replay: there is no file {path}.")
    saved = dict(np.load(path, allow_pickle=False))
    step = int(saved.pop("step"))
    batch = sharding.put_batch(training.mesh, saved)
    ts = dataclasses.replace(ts, step=jax.numpy.int32(step - 1))
    with jax.debug_nans(True):
        try:
            _, scalars = jax.jit(inspect.unwrap(training.step))(ts, batch)
        except FloatingPointError as error:
            print(f"Step {step}: {error}")
            raise
    values = {key: float(value) for key, value in scalars.items()}
    print(f"Step {step} is finite here: {values}; positions {saved['position'].tolist()}")
