"""Orders to stop that come from outside: SIGTERM, SIGINT (Ctrl-C) and SIGHUP."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

from absl import logging

from segjax.runs import unraisable

STATUS = {"SIGTERM": 0, "SIGINT": 130, "SIGHUP": 129}
"""Exit status of a run that saved and ended as it was asked to."""

_ONE_ORDER = 0.5  # seconds within which a second signal is the first, forwarded by a launcher too
_SOON = 0.05


class Asked(BaseException):
    """The run was asked to stop before there was anything to save."""


class Orders:
    """Context manager that hears orders to stop.

    Until `work_begins` an order raises `Asked` wherever the program is. After that it is only
    remembered: the work looks at `given`, saves and ends. A second order ends the process at once.
    A signal that the process was started to ignore, as nohup does with SIGHUP, stays ignored. One
    within another takes over an order that the other has heard.

    Args:
        alone: whether this is the only process of its run. With several, JAX's preemption service
            receives SIGTERM and notifies all of them at the same step; a handler here would disable
            it. The other signals are handed on to it.
        ends_program: whether the program ends after it: later orders find nothing to stop, and are
            ignored.
        clock: seconds.
    """

    _active: ClassVar[list["Orders"]] = []

    def __init__(
        self,
        *,
        alone: bool = True,
        ends_program: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._alone, self._ends_program, self._clock = alone, ends_program, clock
        self._working = False
        self._again: threading.Timer | None = None
        self._undo: Callable[[], None] = lambda: None
        self._first: tuple[str, float] | None = None  # the order's name and time
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        # Python delivers signals only to the main thread; a notebook may train in another.
        if threading.current_thread() is not threading.main_thread():
            return self
        self._undo = unraisable.divert(self._swallowed)
        for name in STATUS:
            number = getattr(signal, name, None)
            if number is None or (name == "SIGTERM" and not self._alone):
                continue
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._hear)
        if self._active:
            self._first = self._active[-1]._first
        self._active.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._drop_again()
        if self in self._active:
            self._active.remove(self)
        for outer in self._active:
            outer._working = True  # what was to be done is done
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._ends_program else handler)  # type: ignore[arg-type]
        self._before.clear()
        self._undo()

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
            self._drop_again()
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
            if self._again is not None and not self._working:
                self._again = None
                raise Asked
            if now - self._first[1] < _ONE_ORDER:
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._first = name, now
        if not self._working:
            raise Asked
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)

    def _drop_again(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _swallowed(self, told: Any) -> bool:
        """Raises `Asked` again soon, where it was raised in a callback that cannot raise."""
        if not isinstance(told.exc_value, Asked):
            return False
        assert self._first is not None
        number = getattr(signal, self._first[0])
        self._again = threading.Timer(_SOON, os.kill, (os.getpid(), number))
        self._again.daemon = True
        self._again.start()
        return True


@contextlib.contextmanager
def obeyed(*, alone: bool = True, ends_program: bool = False) -> Iterator[Orders]:
    """Context of a run that obeys orders to stop, and ends as `Orders.end` says; see `Orders`."""
    with Orders(alone=alone, ends_program=ends_program) as orders:
        try:
            yield orders
        except Asked:
            logging.info(
                "Asked to stop before the first step: nothing is lost, the same command starts "
                "again."
            )
    orders.end()
