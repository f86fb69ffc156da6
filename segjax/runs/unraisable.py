"""Errors that nobody can be told of by raising, as in callbacks of C++ or the garbage collector."""

import sys
from collections.abc import Callable
from typing import Any


def divert(takes: Callable[[Any], bool]) -> Callable[[], None]:
    """Shows each such error to a function, before it is printed with its traceback.

    Args:
        takes: gets what `sys.unraisablehook` gets, and returns whether that settles it.

    Returns:
        What undoes it.
    """
    before = sys.unraisablehook

    def hook(told: Any) -> None:
        if not takes(told):
            before(told)

    def undo() -> None:
        if sys.unraisablehook is hook:
            sys.unraisablehook = before

    sys.unraisablehook = hook
    return undo
