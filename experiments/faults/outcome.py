"""What came of one fault, and the table of many."""

import collections
import dataclasses
from collections.abc import Sequence

VERDICTS = ("survived", "refused", "lost", "silent", "traceback")
"""survived: the result is the one without the fault. refused: one clear line, nothing written.
lost: something that was there, or would be there without the fault, is not. silent: another result,
and no word. traceback: an error that is no line for a user."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One try of one fault.

    Attributes:
        fault: the kind of fault, a row of the table.
        case: which one, so that it can be tried again.
        verdict: of VERDICTS.
        said: the line that the user saw, or what was found.
    """

    fault: str
    case: str
    verdict: str
    said: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"{self.verdict!r} is none of {', '.join(VERDICTS)}.")


def unexpected(fault: str, case: str, error: Exception) -> Outcome:
    """The outcome of an error that is no line for a user."""
    return Outcome(fault, case, "traceback", f"{type(error).__name__}: {error}"[:300])


def bad(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that must not be."""
    return [one for one in outcomes if one.verdict in ("lost", "silent", "traceback")]


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """A row for each fault: its name, the tries, and how many of each verdict."""
    by_fault: dict[str, collections.Counter] = {}
    for one in outcomes:
        by_fault.setdefault(one.fault, collections.Counter())[one.verdict] += 1
    return [
        [fault, str(counts.total()), *(str(counts[verdict]) for verdict in VERDICTS)]
        for fault, counts in by_fault.items()
    ]
