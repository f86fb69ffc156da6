"""The largest batch whose training step fits into a device's memory, found by compiling."""

import dataclasses
from collections.abc import Callable

from segjax.planning import plan


@dataclasses.dataclass(frozen=True)
class Largest:
    """The largest batch that fits.

    Attributes:
        images: images of a step on all devices; 0 if not even the smallest batch fits.
        fits: the step of that batch; None without one.
        beyond: the step of the next larger batch, which does not fit; None where `most` was hit.
    """

    images: int
    fits: plan.Program | None
    beyond: plan.Program | None


def largest(
    compiled: Callable[[int], plan.Program], unit: int, room: float, *, first: int, most: int
) -> Largest:
    """The largest multiple of `unit` images that needs at most `room` bytes.

    Memory grows nearly evenly with the batch: the line through the last two steps tells where to
    look next, and the search ends when a batch fits and the next does not.

    Args:
        compiled: images -> the training step of such a batch.
        unit: images by which a batch grows.
        room: bytes of a device.
        first: images to begin with, a multiple of `unit`.
        most: no more than so many images.
    """
    known: dict[int, plan.Program] = {}

    def needs(units: int) -> float:
        if units not in known:
            known[units] = compiled(units * unit)
        memory = known[units].memory
        return float("inf") if memory is None else memory.total

    low, high = 0, most // unit + 1  # `low` fits, `high` does not
    guess = min(first // unit, high - 1)
    while high - low > 1:
        guess = min(max(guess, low + 1), high - 1)
        if needs(guess) <= room:
            low = guess
        else:
            high = guess
        guess = _next(known, room, low, high)
    return Largest(low * unit, known.get(low), known.get(high))


def _next(known: dict[int, plan.Program], room: float, low: int, high: int) -> int:
    """Where the line through two known batches reaches `room`; the middle without one."""
    points = sorted(
        (units, program.memory.total) for units, program in known.items() if program.memory
    )
    if len(points) < 2:
        return 2 * low if low else high // 2
    (a, of_a), (b, of_b) = points[-2:]
    slope = (of_b - of_a) / (b - a)
    if slope <= 0:
        return (low + high) // 2
    reached = int(a + (room - of_a) / slope)
    # At the ends of the interval one more step decides; in its middle the line does.
    return reached if low < reached < high else (low + 1 if reached <= low else high - 1)
