"""Timing of calls that take turns, so that a busy machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable


def median_ms(*calls: Callable[[], object], rounds: int) -> list[float]:
    """Median milliseconds of each call, the calls taken in turn in every round.

    A call has to wait for its result. In its turn each is made three times and the first is not
    counted: it may compile, and threads of the library before (OpenMP, OpenBLAS) spin for a while
    after their work, on the cores that it needs.
    """
    times = [[] for _ in calls]
    for _ in range(rounds):
        for call, mine in zip(calls, times, strict=True):
            call()
            for _ in range(2):
                start = time.perf_counter()
                call()
                mine.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(mine) for mine in times]
