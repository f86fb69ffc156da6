"""The events of a run: scalars by step, in metrics.jsonl and for TensorBoard."""

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from absl import logging

from segjax import files
from segjax.errors import InputError
from segjax.runs import closing
from segjax.runs.tensorboard import Board

_NAME = "metrics.jsonl"


def read(workdir: str | os.PathLike) -> list[dict]:
    """The events of a run in the order written; an empty list where there is no run yet.

    Every event holds "step" (int), "time" (seconds since 1970) and its scalars; null, the mark of a
    value that was not finite, is read as nan. Lines that are no event, such as the torn last one of
    a killed process, are left out.

    Raises:
        InputError: naming the file, if it cannot be read.
    """
    events = [_parse(line) for line in _read_lines(pathlib.Path(workdir) / _NAME)]
    return [
        {key: math.nan if value is None else value for key, value in event.items()}
        for event in events
        if event is not None
    ]


class EventLog(closing.Closing):
    """Writes the events of a run into its folder. A context manager; or `close` it.

    A log that starts at a step keeps the events up to that step and drops later ones, which the
    resumed run will write again: there are neither gaps nor doubles. At step 0 it starts empty.

    Args:
        workdir: the run folder; made if it is missing.
        step: the last step that is done, 0 for a new run.
        enabled: False makes every method do nothing: only process 0 writes.
        keep: which of the events up to the step to keep; all of them if None.

    Attributes:
        broken: whether an event could not be written.

    Raises:
        InputError: naming the file, here and in every method, if the disk refuses.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        step: int,
        enabled: bool = True,
        keep: Callable[[dict], bool] | None = None,
    ):
        self._path = pathlib.Path(workdir) / _NAME
        self._enabled = enabled
        self.broken = False
        if enabled:
            self._keep(step, keep or (lambda event: True))
            with _refusals(self._path):
                self._lines = self._path.open("a", encoding="utf-8")
            self._board = Board(self._path.with_name("tensorboard"), step + 1 if step else 0)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one event: a line of strict JSON, on disk at once, and TensorBoard scalars.

        JSON has no nan and no infinity: both become null. TensorBoard gets them as they are.
        """
        if not self._enabled:
            return
        values = {key: float(value) for key, value in scalars.items()}
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        line = json.dumps({"step": int(step), "time": time.time(), **finite}, allow_nan=False)
        try:
            with _refusals(self._path):
                self._lines.write(f"{line}\n")
                self._lines.flush()
        except InputError:
            self.broken = True
            raise
        self._board.scalars(step, values)

    def image(self, step: int, tag: str, rgb: np.ndarray) -> None:
        """Shows a picture uint8 [H, W, 3] in TensorBoard."""
        if self._enabled:
            self._board.image(step, tag, rgb)

    def close(self) -> None:
        """Closes the files; nothing is written after it."""
        if not self._enabled:
            return
        self._enabled = False
        self._board.close()
        with _refusals(self._path):
            self._lines.close()

    def _keep(self, step: int, chosen: Callable[[dict], bool]) -> None:
        """Rewrites the log with the chosen events up to `step`, none for 0."""
        lines = _read_lines(self._path)
        events = [_parse(line) for line in lines]
        kept = [
            line
            for line, event in zip(lines, events, strict=True)
            if event is not None and step > 0 and event["step"] <= step and chosen(event)
        ]
        broken = sum(event is None for event in events)
        if broken:
            logging.warning("%s: %d damaged lines dropped.", self._path, broken)
        files.write(self._path, b"".join(line + b"\n" for line in kept))


def _read_lines(path: pathlib.Path) -> list[bytes]:
    """The lines of a file that have an end; none if there is no file."""
    with _refusals(path):
        return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _parse(line: bytes) -> dict | None:
    """An event of the log; None if the line is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(event, dict) and isinstance(event.get("step"), int)
    return event if whole else None


@contextlib.contextmanager
def _refusals(path: pathlib.Path) -> Iterator[None]:
    """Turns an error of the disk into one line for the user."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}.") from error
