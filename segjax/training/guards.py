"""Guards of a run against preemption, hangs and non-finite steps."""

import contextlib
import dataclasses
import faulthandler
import inspect
import pathlib
import shlex
import statistics
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
from absl import logging

from segjax import files, sharding
from segjax.errors import InputError
from segjax.models import crf_rnn
from segjax.runs import checkpoint, orders
from segjax.training import state
from segjax.training.assembly import Training

_HANG_FACTOR = 20  # a step this many times the median counts as a hang
_HANG_SECONDS = 120  # shorter steps never count


class Guards:
    """Context manager that heeds orders to stop, reports hangs and saves non-finite batches.

    With several processes JAX's preemption service makes an order known to all at one moment.

    Args:
        workdir: run folder; batches of non-finite steps are saved in nonfinite/.
        patience: number of consecutive non-finite steps that ends the run.
        checkpoints: the run's checkpoints; they report preemption of several processes.
        order: orders to this process.
        step: last completed step.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        patience: int,
        checkpoints: checkpoint.Checkpoints,
        order: orders.Orders,
        *,
        step: int = 0,
    ):
        self._folder = workdir / "nonfinite"
        self._patience = patience
        self._checkpoints, self._order = checkpoints, order
        self._alone = jax.process_count() == 1
        self._stop = False
        self._moments = step  # never below the step, with which orbax asks too
        # Most CRF vertices per pixel among the current non-finite steps, see `crf_rnn.cause`.
        self._vertices = 0.0
        self._durations: list[float] = []
        self._last = time.monotonic()

    def __enter__(self) -> "Guards":
        return self

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()

    @property
    def asked(self) -> bool:
        """Whether this process, the only one of its run, was asked to stop."""
        return self._alone and self._order.given

    def stopping(self) -> bool:
        """Whether the run must save and stop now; asked by all processes at the same moments."""
        self._moments += 1
        if self._alone:
            self._stop = self.asked
        elif self._checkpoints.reached_preemption(self._moments):
            self._stop = True
        return self._stop

    def beat(self) -> None:
        """Records that a step is done; prints all stacks if the next takes far too long."""
        now = time.monotonic()
        self._durations = [*self._durations[-50:], now - self._last]
        self._last = now
        limit = max(_HANG_SECONDS, _HANG_FACTOR * statistics.median(self._durations))
        # Not sys.stderr, which has no file descriptor in a notebook.
        if sys.__stderr__ is not None:
            faulthandler.dump_traceback_later(limit, exit=False, file=sys.__stderr__)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Context whose time does not count as part of a step."""
        faulthandler.cancel_dump_traceback_later()
        yield
        self._last = time.monotonic()

    def broken(self, step: int, scalars: dict[str, float], batch: dict[str, np.ndarray]) -> bool:
        """Saves the batch of a skipped step; True after too many in a row.

        Args:
            step: the step.
            scalars: scalars of `steps.train_step`; reads `skipped`, the number of non-finite steps
                in a row up to this one, and `crf_vertices_wanted`.
            batch: this process's rows of the batch.
        """
        if not scalars["skipped"]:
            self._vertices = 0.0
            return False
        self._vertices = max(self._vertices, scalars.get("crf_vertices_wanted", 0.0))
        path = self._path(step)
        files.write_npz(path, step=step, **batch)
        logging.warning(
            "Step %d was not finite and is skipped; its batch: %s%s", step, path, self._cause()
        )
        return scalars["skipped"] >= self._patience

    def error(self, step: int) -> InputError:
        """The error that ends the run, with a command that replays the batch."""
        again = [word for word in sys.argv[1:] if not word.startswith("--replay")]
        command = shlex.join(
            ["python", "-m", "segjax.main", *again, f"--replay={self._path(step)}"]
        )
        if not any(word.lstrip("-").startswith("config") for word in again):  # called from Python
            command = f"segjax.training.loop.run(config, workdir, replay={str(self._path(step))!r})"
        return InputError(
            f"Loss or gradient was not finite for {self._patience} steps in a row, up to step "
            f"{step}; the weights are from before these steps.{self._cause()} "
            f"Replay it with: {command}"
        )

    def _cause(self) -> str:
        """The cause if the CRF's lattice overflowed, after a space; else ""."""
        return f" {crf_rnn.cause(self._vertices)}" if self._vertices else ""

    def _path(self, step: int) -> pathlib.Path:
        process = "" if self._alone else f"-process{jax.process_index()}"
        return self._folder / f"step-{step:07d}{process}.npz"


def replay(training: Training, ts: state.TrainState, path: pathlib.Path) -> None:
    """Reruns a saved batch under NaN checks and prints the operation that failed.

    Raises:
        InputError: if the file does not exist.
    """
    if not path.exists():
        raise InputError(f"--replay: {path} does not exist.")
    saved = dict(np.load(path, allow_pickle=False))
    step = int(saved.pop("step"))
    saved.setdefault("position_high", np.zeros_like(saved["position"]))  # older files lack it
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
