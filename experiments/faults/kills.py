"""kill -9 at moments that nobody chose, and the same command again, until the run has ended."""

import pathlib
import random
import signal
import time

from experiments.faults import child, runs
from experiments.faults.outcome import Outcome
from segjax.runs.progress import ProgressLine

_OFTEN = set(child.PHASES) - {"compilation", "drawing", "the end"}  # more than once in a run
_IN_A_ROW = 5  # kills of one run


def run(folder: pathlib.Path, count: int, seed: int = 0) -> list[Outcome]:
    """Kills `count` times, in every phase in turn, each run up to five times.

    Every run that was killed must end as one that was not.
    """
    chosen, outcomes = random.Random(seed), list[Outcome]()
    whole = folder / "whole"
    lasts = runs.durations(runs.whole(whole))
    phases = ["the start", *child.PHASES]
    progress = ProgressLine("kills", count)
    for number in range(2 * count):  # some come too late
        if len(outcomes) >= count:
            break
        workdir, doing = folder / str(number), list[str]()
        for _ in range(min(_IN_A_ROW, count - len(outcomes))):
            phase = phases[(len(outcomes) + len(doing)) % len(phases)]
            then = _killed(workdir, phase, chosen, lasts[phase])
            if then is None:  # the run had ended
                break
            doing.append(then)
        status, said = runs.train(workdir).end()
        end = runs.judged("", "", workdir, whole, status, said)
        outcomes += [
            Outcome(
                f"kill -9 during {then}", f"{number}: {', '.join(doing)}", end.verdict, end.said
            )
            for then in doing
        ]
        progress.show(len(outcomes))
    return outcomes


def _killed(workdir: pathlib.Path, phase: str, chosen: random.Random, seconds: float) -> str | None:
    """Kills a start of a run in or after a phase; what it was doing, None if it ended before."""
    often = phase in _OFTEN and not workdir.exists()  # else it would soon be over
    times = chosen.randrange(1, 4) if often else 1
    process = runs.train(workdir)
    if process.reached(phase, times):
        time.sleep(chosen.uniform(0, seconds))
        process.send(signal.SIGKILL)
    status, _ = process.end()
    return process.doing() if status == -signal.SIGKILL else None
