"""What a run tells while it runs: metrics.jsonl, TensorBoard events, one progress line, rates."""

import contextlib
import json
import math
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO

import jax
import numpy as np
from absl import logging
from tensorboardX import event_file_writer
from tensorboardX.proto import event_pb2, summary_pb2

from segjax import visualize
from segjax.errors import InputError

_METRICS = "metrics.jsonl"
_LINE_EVERY = 10.0  # seconds between progress lines in a log file
_REDRAW_EVERY = 0.1  # and on a terminal


def read_metrics(workdir: str | os.PathLike) -> list[dict]:
    """The events of a run, in the order written; an empty list where there is no run yet.

    Every event holds "step" (int), "time" (seconds since 1970) and its scalars; null, the mark of a
    value that was not finite, is read as nan. Lines that are no event, such as the torn last one of
    a killed process, are left out.

    Raises:
        InputError: naming the file, if it cannot be read.
    """
    events = [_parse(line) for line in _read_lines(pathlib.Path(workdir) / _METRICS)]
    return [
        {key: math.nan if value is None else value for key, value in event.items()}
        for event in events
        if event is not None
    ]


class Tracker:
    """Writes the events of a run into its folder. Use as a context manager, or `close` it.

    A tracker that starts at a step keeps the events up to that step and drops later ones, which the
    resumed run will write again, so that the log has neither gaps nor doubles; at step 0 the log
    starts anew.

    Args:
        workdir: the run folder; made if it is not there.
        step: the last step that is done, 0 for a new run.
        total_steps: where the run ends.
        enabled: False makes every method do nothing, but for `history`: only process 0 writes.
        clock: seconds, for the progress line.
        stream: takes the progress line; standard error if None.

    Raises:
        InputError: naming the file, here and in every method, if the disk refuses.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        step: int,
        total_steps: int,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ):
        self._workdir = pathlib.Path(workdir)
        self._enabled = enabled
        self._line = ProgressLine("step", total_steps, clock=clock, stream=stream)
        if enabled:
            self._keep(step)
            with _disk(self._workdir / _METRICS):
                self._metrics = (self._workdir / _METRICS).open("a", encoding="utf-8")
            self._open_board(step + 1 if step else 0)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one event: a line of strict JSON, on disk at once, and TensorBoard scalars.

        JSON has no nan and no infinity: both become null. TensorBoard gets them as they are.
        """
        if not self._enabled:
            return
        values = {key: float(value) for key, value in scalars.items()}
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        line = json.dumps({"step": int(step), "time": time.time(), **finite}, allow_nan=False)
        with _disk(self._workdir / _METRICS):
            self._metrics.write(f"{line}\n")
            self._metrics.flush()
        value = summary_pb2.Summary.Value
        tags = [value(tag=key, simple_value=number) for key, number in values.items()]
        self._write_board(step, summary=summary_pb2.Summary(value=tags))

    def image(self, step: int, tag: str, rgb: np.ndarray) -> None:
        """Shows a picture uint8 [H, W, 3] in TensorBoard."""
        if not self._enabled:
            return
        image = summary_pb2.Summary.Image(
            height=rgb.shape[0],
            width=rgb.shape[1],
            colorspace=3,
            encoded_image_string=visualize.encode_png(rgb),
        )
        value = summary_pb2.Summary.Value(tag=tag, image=image)
        self._write_board(step, summary=summary_pb2.Summary(value=[value]))

    def history(self) -> list[dict]:
        """The events so far, as `read_metrics` gives them; those of earlier starts too."""
        return read_metrics(self._workdir)

    def progress(self, step: int, text: str = "") -> None:
        """Tells people where the run is; see `ProgressLine`."""
        if not self._enabled:
            return
        self._line.show(step, text)

    def close(self) -> None:
        """Ends the progress line and closes the files; nothing is written after it."""
        if not self._enabled:
            return
        self._enabled = False
        self._line.close()
        with _disk(self._workdir):
            self._board.close()
            self._metrics.close()

    def _keep(self, step: int) -> None:
        """Rewrites the log with the events up to `step`, none for 0: the whole file or nothing."""
        path = self._workdir / _METRICS
        lines = _read_lines(path)
        events = [_parse(line) for line in lines]
        kept = [
            line
            for line, event in zip(lines, events, strict=True)
            if event is not None and step > 0 and event["step"] <= step
        ]
        broken = sum(event is None for event in events)
        if broken:
            logging.warning("%s: %d damaged lines dropped.", path, broken)
        visualize.write_file(path, b"".join(line + b"\n" for line in kept))

    def _open_board(self, purge_step: int) -> None:
        """Opens a new event file that makes TensorBoard forget what older ones say from a step on.

        tensorboardX's `SummaryWriter` is not used: it writes from a thread behind a queue of ten,
        which loses the last two minutes of a killed run and blocks for good once the disk is full.
        """
        folder = self._workdir / "tensorboard"
        with _disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # Its name has whole seconds only: two starts within one would overwrite each other.
            self._board = event_file_writer.EventsWriter(
                str(folder / "events"), f".{time.time_ns()}"
            )
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write_board(purge_step, session_log=start)

    def _write_board(self, step: int, **content) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=step, **content)
        with _disk(self._workdir / "tensorboard"):
            self._board.write_event(event)
            self._board.flush()


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


def format_table(rows: Sequence[Sequence], header: Sequence[str]) -> str:
    """A plain-text table, a rule under its header; columns that hold a number are right-aligned.

    A float is written with four decimals, nan as "-", everything else by `str`.

    Raises:
        ValueError: if a row has another length than the header.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    columns = list(zip(header, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [any(_is_number(text) for text in column[1:]) for column in columns]

    def line(texts: Sequence[str]) -> str:
        aligned = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(texts, widths, right, strict=True)
        ]
        return "  ".join(aligned).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(header), rule, *map(line, cells)])


def _cell(value) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.4f}" if math.isfinite(value) else "-"
    return str(value)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _read_lines(path: pathlib.Path) -> list[bytes]:
    """The lines of a file that have an end; none if there is no file."""
    with _disk(path):
        return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _parse(line: bytes) -> dict | None:
    """An event of the log, or None where the line is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(event, dict) and isinstance(event.get("step"), int)
    return event if whole else None


@contextlib.contextmanager
def _disk(path: pathlib.Path) -> Iterator[None]:
    """Turns the disk's refusal into one line for the user."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}.") from error
