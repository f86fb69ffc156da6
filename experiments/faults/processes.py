"""One of two processes killed, frozen or slow: the other ends, both go on from what is saved."""

import pathlib
import random
import signal
import socket
import threading
import time

from experiments.faults import outcome, runs
from experiments.faults.outcome import Outcome
from segjax.runs import event_log
from segjax.runs.progress import ProgressLine

_FLAGS = ("--config.total_steps=8", "--config.every_steps.checkpoint=2")
_SLOWED = 1.0  # seconds that a slow process stands still, again and again


def run(folder: pathlib.Path, count: int, seed: int = 0) -> list[Outcome]:
    """Disturbs `count` pairs: of ten, six have one killed, two one frozen, and two one slow."""
    chosen, outcomes = random.Random(seed), list[Outcome]()
    whole = folder / "whole"
    for process in _pair(whole):
        process.undisturbed()
    progress = ProgressLine("processes", count)
    kinds = (_killed, _killed, _killed, _frozen, _slow)
    for number in range(count):
        workdir, which = folder / str(number), number % 2
        outcomes.append(kinds[number % len(kinds)](workdir, whole, which, chosen))
        progress.show(len(outcomes))
    return outcomes


def _pair(workdir: pathlib.Path) -> list[runs.Child]:
    """Two processes of one run, with a device each."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    together = (f"--coordinator=127.0.0.1:{port}", "--processes=2")
    return [runs.train(workdir, *_FLAGS, *together, f"--process_id={i}") for i in (0, 1)]


def _killed(
    workdir: pathlib.Path, whole: pathlib.Path, which: int, chosen: random.Random
) -> Outcome:
    pair = _pair(workdir)
    phase = chosen.choice(["compilation", "a step", "a save", "an evaluation"])
    if pair[which].reached(phase):
        time.sleep(chosen.uniform(0, 0.3))
    pair[which].send(signal.SIGKILL)
    fault, case = f"one of two processes killed (process {which})", f"in {phase}"
    return _gone_on(fault, case, workdir, whole, pair, which)


def _frozen(
    workdir: pathlib.Path, whole: pathlib.Path, which: int, chosen: random.Random
) -> Outcome:
    """Stands still until the other has ended, and is then woken: it may not write any more."""
    pair = _pair(workdir)
    phase = chosen.choice(["a step", "an evaluation"])
    pair[which].reached(phase)
    pair[which].send(signal.SIGSTOP)
    fault, case = f"one of two processes frozen (process {which})", f"in {phase}"
    other = pair[1 - which].end()[0]
    logged = event_log.read(workdir)
    pair[which].send(signal.SIGCONT)
    woken = pair[which].end()[0]
    if None in (other, woken):
        return Outcome(fault, case, "lost", f"hung: {other} and {woken}")
    if event_log.read(workdir) != logged:
        return Outcome(fault, case, "silent", "it went on writing when it woke up")
    return _gone_on(fault, case, workdir, whole, pair, which)


def _slow(workdir: pathlib.Path, whole: pathlib.Path, which: int, chosen: random.Random) -> Outcome:
    pair = _pair(workdir)
    pair[which].reached("a step")
    stopped, over = [], threading.Event()

    def hold() -> None:
        while not over.wait(chosen.uniform(0, _SLOWED)):
            if not pair[which].send(signal.SIGSTOP):
                return
            stopped.append(1)
            time.sleep(_SLOWED)
            pair[which].send(signal.SIGCONT)

    holder = threading.Thread(target=hold)
    holder.start()
    ends = [process.end() for process in pair]
    over.set()
    holder.join()
    fault, case = f"one of two processes slow (process {which})", f"{len(stopped)} times"
    if not stopped:
        raise RuntimeError("The slow process was never held.")
    outcomes = [runs.judged(fault, case, workdir, whole, *end) for end in ends]
    return (outcome.bad(outcomes) or outcomes)[0]


def _gone_on(
    fault: str,
    case: str,
    workdir: pathlib.Path,
    whole: pathlib.Path,
    pair: list[runs.Child],
    which: int,
) -> Outcome:
    """The other ended by itself, with a word; both again have the end of the undisturbed pair."""
    status, said = pair[1 - which].end()
    pair[which].end()
    if status in (None, 0):
        return Outcome(fault, case, "silent", f"the other ended with {status}: {said[-300:]}")
    # JAX's service ends the process itself where it is faster than the connection that broke.
    told = "segjax: Another process of this run" in said or "another task died" in said
    if "Traceback" in said or not told:
        return Outcome(fault, case, "traceback", said[-600:])
    ends = [process.end() for process in _pair(workdir)]
    outcomes = [runs.judged(fault, case, workdir, whole, *end) for end in ends]
    return (outcome.bad(outcomes) or outcomes)[0]
