"""Damaged checkpoints: the run goes on from a whole one, says so, and the damage does not stay."""

import pathlib
import random
import shutil
import signal
from collections.abc import Callable

from experiments.faults import runs
from experiments.faults.outcome import Outcome
from segjax.runs import checkpoint
from segjax.runs.progress import ProgressLine


def run(folder: pathlib.Path, count: int, seed: int = 0) -> list[Outcome]:
    """Damages the newest checkpoint of a run that was stopped `count` times, and goes on."""
    chosen, outcomes = random.Random(seed), list[Outcome]()
    whole, half = folder / "whole", folder / "half"
    runs.whole(whole)
    stopped = runs.train(half)
    stopped.reached("a step", 8)
    stopped.send(signal.SIGTERM)
    stopped.end()
    progress = ProgressLine("checkpoints", count)
    for number in range(count):
        workdir = folder / str(number)
        shutil.copytree(half, workdir)
        damage = _DAMAGES[number % len(_DAMAGES)]
        newest = max(checkpoint.steps_in(workdir / "checkpoints"))
        before = _bytes(workdir / "checkpoints")
        case = (
            f"{damage.__name__} {number}: {damage(workdir / 'checkpoints' / str(newest), chosen)}"
        )
        if _bytes(workdir / "checkpoints") == before:
            raise RuntimeError(f"{case}: nothing was damaged.")
        outcomes.append(_judged(case, workdir, whole, newest))
        shutil.rmtree(workdir)
        progress.show(number + 1)
    return outcomes


def _judged(case: str, workdir: pathlib.Path, whole: pathlib.Path, newest: int) -> Outcome:
    fault = f"a damaged checkpoint ({case.split()[0].replace('_', ' ')})"
    status, said = runs.train(workdir).end()
    end = runs.judged(fault, case, workdir, whole, status, said)
    if end.verdict != "survived":
        return end
    aside = (workdir / "checkpoints" / f"damaged-{newest}").exists()
    if aside and f"step {newest} is damaged" not in said:
        return Outcome(fault, case, "silent", said[-300:])
    status, said = runs.train(workdir).end()
    if "damaged" in said:
        return Outcome(fault, case, "lost", f"the damage stays: {said[-300:]}")
    what = "set aside, and its step saved anew" if aside else "the damage does not matter"
    return Outcome(fault, case, "survived", what)


def _bytes(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _file(step: pathlib.Path, chosen: random.Random) -> pathlib.Path:
    """A file of a checkpoint that holds something."""
    return chosen.choice([p for p in sorted(step.rglob("*")) if p.is_file() and p.stat().st_size])


def truncated(step: pathlib.Path, chosen: random.Random) -> str:
    """A file without its end."""
    path = _file(step, chosen)
    data = path.read_bytes()
    path.write_bytes(data[: chosen.randrange(len(data))])
    return str(path.relative_to(step))


def flipped(step: pathlib.Path, chosen: random.Random) -> str:
    """One bit of a file, of the larger ones more often."""
    files = [path for path in sorted(step.rglob("*")) if path.is_file() and path.stat().st_size]
    path = chosen.choices(files, [file.stat().st_size for file in files])[0]
    data = bytearray(path.read_bytes())
    data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    path.write_bytes(data)
    return str(path.relative_to(step))


def without_a_file(step: pathlib.Path, chosen: random.Random) -> str:
    """A file that is gone."""
    path = _file(step, chosen)
    path.unlink()
    return str(path.relative_to(step))


def emptied(step: pathlib.Path, chosen: random.Random) -> str:
    """A file of zeros, as some file systems leave after a loss of power."""
    path = _file(step, chosen)
    path.write_bytes(bytes(path.stat().st_size))
    return str(path.relative_to(step))


def another_step(step: pathlib.Path, chosen: random.Random) -> str:
    """An older checkpoint under this one's number."""
    others = [s for s in checkpoint.steps_in(step.parent) if str(s) != step.name]
    other = step.parent / str(chosen.choice(others))
    shutil.rmtree(step)
    shutil.copytree(other, step)
    return f"step {other.name}"


_DAMAGES: tuple[Callable[[pathlib.Path, random.Random], str], ...] = (
    truncated, flipped, without_a_file, emptied, another_step,
)  # fmt: skip
