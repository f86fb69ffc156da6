"""The events of a run: metrics.jsonl and TensorBoard."""

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

import numpy as np
from absl import logging
from tensorboardX import event_file_writer
from tensorboardX.proto import event_pb2, summary_pb2

from segjax import files
from segjax.errors import InputError
from segjax.pictures import layout
from segjax.runs.progress import ProgressLine

_METRICS = "metrics.jsonl"


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
            encoded_image_string=layout.encode_png(rgb),
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
        files.write(path, b"".join(line + b"\n" for line in kept))

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
