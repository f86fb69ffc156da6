"""A progress line for long work."""

import math
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

_LINE_EVERY = 10.0  # seconds between progress lines in a log file

_REDRAW_EVERY = 0.1  # and on a terminal


class ProgressLine:
    """A line that renews itself on a terminal; a line now and then in a log file.

    The time left comes from the mean rate between the first call and this one, which leaves out
    what was done before a resume and the compilation of the first step. A log file gets a line
    every ten seconds at most, and one at the end.

    Args:
        noun: of what is counted, such as "step".
        total: at the end.
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
        """Says that `done` of the total are done; `text` follows."""
        now = self._clock()
        first, since = self._first = self._first or (done, now)
        every = _REDRAW_EVERY if self._terminal else _LINE_EVERY
        if now - self._shown < every and done < self._total:
            return
        self._shown = now
        percent = 100 * done // max(1, self._total)
        left = self._left(done - first, self._total - done, now - since)
        parts = [f"{self._noun} {done}/{self._total} {percent}%", f"{left} left"]
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

    def _left(self, counted: int, missing: int, took: float) -> str:
        """Time to the end as h:mm:ss, "-:--:--" while the rate is not known."""
        if missing <= 0:
            return "0:00:00"
        if counted <= 0:
            return "-:--:--"
        seconds = round(took / counted * missing)
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
