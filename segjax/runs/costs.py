"""The costs of a training loop, for the log: rates, waiting, memory."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

import jax


def peak_memory(devices: Sequence[jax.Device]) -> dict[str, float]:
    """The most memory in use so far on one of the devices, as "train/peak_gib".

    Empty where the devices do not tell; a CPU does not.
    """
    stats = [device.memory_stats() or {} for device in devices]
    peaks = [known["peak_bytes_in_use"] for known in stats if "peak_bytes_in_use" in known]
    return {"train/peak_gib": max(peaks) / 2**30} if peaks else {}


class Meter:
    """Rates of a training loop between two events of the log.

        with meter.waiting():
            batch = next(batches)
        ...
        meter.step(images=16)
        ...
        with meter.paused():
            evaluate()

    Args:
        operations: floating-point operations of a step, in products and convolutions.
        peak: those that all devices can do in a second; None: not known.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        operations: float = 0.0,
        peak: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._clock = clock
        self._operations, self._peak = operations, peak
        self._since: float | None = clock()  # None while paused
        self._clear()

    def _clear(self) -> None:
        self._active = self._waited = 0.0
        self._steps = self._images = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The time inside is time spent waiting for data."""
        start = self._clock()
        try:
            yield
        finally:
            if self._since is not None:
                self._waited += self._clock() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time inside does not count: evaluation, checkpoints, pictures. Nests."""
        if self._since is None:
            yield
            return
        self._active += self._clock() - self._since
        self._since = None
        try:
            yield
        finally:
            self._since = self._clock()

    def step(self, images: int) -> None:
        """Counts one training step of `images` images over all processes."""
        self._steps += 1
        self._images += images

    def read_and_reset(self) -> dict[str, float]:
        """The rates since the last call; empty if no step was counted.

        "train/images_per_s"; "train/step_ms", the mean, waiting included; "train/data_wait", the
        share of the time spent waiting for data, 0 to 1; on known chips "train/mfu", the share of
        their rate that the step's products make use of, 0 to 1 (model FLOPs utilisation).
        """
        now = self._clock()
        seconds = self._active
        if self._since is not None:
            seconds += now - self._since
            self._since = now
        rates = {}
        if self._steps and seconds > 0:
            rates = {
                "train/images_per_s": self._images / seconds,
                "train/step_ms": 1000 * seconds / self._steps,
                "train/data_wait": self._waited / seconds,
            }
            if self._peak:
                rates["train/mfu"] = self._steps * self._operations / seconds / self._peak
        self._clear()
        return rates
