"""SIGTERM, Ctrl-C and SIGHUP at moments that nobody chose: saved, ended in order, and gone on."""

import pathlib
import random
import signal
import time

from experiments.faults import child, runs
from experiments.faults.outcome import Outcome
from segjax.runs import checkpoint, event_log, orders
from segjax.runs.progress import ProgressLine

_OFTEN = set(child.PHASES) - {"compilation", "drawing", "the end"}  # more than once in a run
_IN_A_ROW = 4  # orders to one run


def run(folder: pathlib.Path, count: int, seed: int = 0) -> list[Outcome]:
    """Gives `count` orders of each kind, in every phase in turn."""
    chosen, outcomes = random.Random(seed), list[Outcome]()
    whole = folder / "whole"
    lasts = runs.durations(runs.whole(whole))
    moments = [
        (name, phase) for phase in ["the start", *child.PHASES] for name in orders.STATUS
    ]  # in turn
    wanted, number, given = count * len(orders.STATUS), 0, 0
    progress = ProgressLine("signals", wanted)
    while len(outcomes) < wanted and number < wanted:
        workdir, cases = folder / str(number), list[Outcome]()
        for _ in range(min(_IN_A_ROW, wanted - len(outcomes))):
            name, phase = moments[given % len(moments)]
            case = _ordered(workdir, name, phase, chosen, lasts[phase])
            if case is None:
                break
            cases.append(case)
            given += 1
        status, said = runs.train(workdir).end()
        end = runs.judged("", "", workdir, whole, status, said)
        if end.verdict == "survived":
            outcomes += cases
        else:
            outcomes += [Outcome(one.fault, one.case, end.verdict, end.said) for one in cases]
        number += 1
        progress.show(len(outcomes))
    return outcomes


def _ordered(
    workdir: pathlib.Path, name: str, phase: str, chosen: random.Random, seconds: float
) -> Outcome | None:
    """An order in or after a phase; None if the run ended before it."""
    often = phase in _OFTEN and not workdir.exists()  # else it would soon be over
    times = chosen.randrange(1, 4) if often else 1
    process = runs.train(workdir)
    reached = process.reached(phase, times)
    time.sleep(chosen.uniform(0, seconds) if reached else 0)
    doing = process.doing()
    sent = reached and process.send(getattr(signal, name))
    status, said = process.end()
    if not sent:
        return None
    return _judged(f"{name} during {doing}", workdir.name, workdir, name, status, said)


def _judged(
    fault: str, case: str, workdir: pathlib.Path, name: str, status: int | None, said: str
) -> Outcome:
    """Ended as promised, with all logged steps saved."""
    if "Traceback" in said:
        return Outcome(fault, case, "traceback", said[said.index("Traceback") :][:600])
    over = max(checkpoint.steps_in(workdir / "checkpoints"), default=0) == runs.STEPS
    if status != orders.STATUS[name] and not (over and status == 0):  # it came too late to matter
        return Outcome(fault, case, "lost", f"ended with {status}: {said[-300:]}")
    logged = max((event["step"] for event in event_log.read(workdir)), default=0)
    saved = max(checkpoint.steps_in(workdir / "checkpoints"), default=0)
    if saved < logged:
        return Outcome(fault, case, "lost", f"step {logged} is logged, {saved} saved")
    return Outcome(fault, case, "survived", f"step {saved} is saved; the same end later")
