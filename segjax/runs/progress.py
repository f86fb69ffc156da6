"""How far a run is, and how fast: one line for people, rates for the log."""

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

import jax

_LINE_EVERY = 10.0  # seconds between progress lines in a log file

_REDRAW_EVERY = 0.1  # and on a terminal


class ProgressLine:
    """Tells people how far long work is: a line that renews itself on a terminal, else a log.

    The time left is by the mean rate from the first call to this one: that leaves out what was done
    before a resume and the compilation of the first step. In a log file a line comes every ten
    seconds at most, and at the end.

    Args:
        noun: what is counted.
        total: how many there are.
        clock: seconds.
        stream: takes the line; standard error if None.
    """

    def __init__(
        self,
        noun: str,
        total: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ):
        self._noun = noun
        self._total = total
        self._clock = clock
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._first: tuple[int, float] | None = None  # of this start: a count and its time
        self._shown = -math.inf

    def show(self, done: int, text: str = "") -> None:
        """Says that `done` of the total are done, with `text` behind."""
        now = self._clock()
        if self._first is None:
            self._first = (done, now)
        every = _REDRAW_EVERY if self._terminal else _LINE_EVERY
        if now - self._shown < every and done < self._total:
            return
        self._shown = now
        percent = 100 * done // max(1, self._total)
        parts = [f"{self._noun} {done}/{self._total} {percent}%", f"{self._left(done, now)} left"]
        line = " | ".join([*parts, text] if text else parts)
        if self._terminal:  # carriage return, text that does not wrap, erase to the end of the line
            line = f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        else:
            line = f"{line}\n"
        self._stream.write(line)
        self._stream.flush()

    def close(self) -> None:
        """Ends the line on a terminal."""
        if self._terminal and self._shown > -math.inf:
            self._stream.write("\n")
            self._stream.flush()

    def _left(self, done: int, now: float) -> str:
        """Time to the end as h:mm:ss, "-:--:--" while the rate is not known."""
        first, first_time = self._first
        if done >= self._total:
            return "0:00:00"
        if done <= first:
            return "-:--:--"
        seconds = round((now - first_time) / (done - first) * (self._total - done))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def peak_memory(devices: Sequence[jax.Device]) -> dict[str, float]:
    """The most memory in use so far on one of the devices, as "train/peak_gib".

    Empty where they do not tell, as a CPU does not.
    """
    stats = [device.memory_stats() or {} for device in devices]
    peaks = [found["peak_bytes_in_use"] for found in stats if "peak_bytes_in_use" in found]
    return {"train/peak_gib": max(peaks) / 2**30} if peaks else {}


class Meter:
    """Rates of a training loop between two log events.

        with meter.waiting():
            batch = next(batches)
        ...
        meter.step(images=16)
        ...
        with meter.paused():
            evaluate()

    Args:
        clock: seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
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
        """Counts one training step of `images` images, over all processes."""
        self._steps += 1
        self._images += images

    def read_and_reset(self) -> dict[str, float]:
        """The rates since the last call; empty if no step was counted.

        "train/images_per_s", "train/step_ms" (mean, with the waiting) and "train/data_wait", the
        share of the time spent waiting for data, 0 to 1.
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
        self._clear()
        return rates
