"""Orders to stop that come from outside: SIGTERM, SIGINT (Ctrl-C) and SIGHUP."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

from absl import logging

STATUS = {"SIGTERM": 0, "SIGINT": 130, "SIGHUP": 129}
"""Exit status of a run that saved and ended as it was asked to."""

_ONE_ORDER = 0.5  # seconds within which a second signal is the first, forwarded by a launcher too


class Asked(BaseException):
    """The run was asked to stop before there was anything to save."""


class Orders:
    """Context manager that hears orders to stop.

    Until `work_begins` an order raises `Asked` wherever the program is. After that it is only
    remembered: the work looks at `given`, saves and ends. A second order ends the process at once.
    A signal that the process was started to ignore, as nohup does with SIGHUP, stays ignored.

    Args:
        alone: whether this is the only process of its run. With several, JAX's preemption service
            receives SIGTERM and notifies all of them at the same step; a handler here would disable
            it. The other signals are handed on to it.
        clock: seconds.
    """

    def __init__(self, *, alone: bool = True, clock: Callable[[], float] = time.monotonic):
        self._alone, self._clock = alone, clock
        self._working = False
        self._first: tuple[str, float] | None = None  # the order's name and time
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        # Python delivers signals only to the main thread; a notebook may train in another.
        if threading.current_thread() is not threading.main_thread():
            return self
        for name in STATUS:
            number = getattr(signal, name, None)
            if number is None or (name == "SIGTERM" and not self._alone):
                continue
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    @property
    def given(self) -> bool:
        """Whether the run has been asked to stop."""
        return self._first is not None

    def work_begins(self) -> None:
        """From now on there is something to save.

        Raises:
            Asked: if the run has been asked to stop already.
        """
        if self.given:  # a library swallowed the exception
            raise Asked
        self._working = True

    def end(self) -> None:
        """Ends the program with the status of the order; returns after SIGTERM, or without one.

        Raises:
            KeyboardInterrupt: after SIGINT.
            SystemExit: after SIGHUP.
        """
        name = self._first[0] if self._first else "SIGTERM"
        if name == "SIGINT":
            raise KeyboardInterrupt
        if STATUS[name]:
            raise SystemExit(STATUS[name])

    def _hear(self, number: int, _frame: object) -> None:
        now, name = self._clock(), signal.Signals(number).name
        if self._first is not None:
            if now - self._first[1] < _ONE_ORDER:
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._first = name, now
        if not self._working:
            raise Asked
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def obeyed(*, alone: bool = True) -> Iterator[Orders]:
    """Context of a run that obeys orders to stop, and ends as `Orders.end` says; see `Orders`."""
    with Orders(alone=alone) as orders:
        try:
            yield orders
        except Asked:
            logging.info(
                "Asked to stop before the first step: nothing is lost, the same command starts "
                "again."
            )
    orders.end()
