"""Losses that are not finite, a clock that jumps, and counters that pass 2^31, 2^32 and 2^33."""

import pathlib
import random
import shutil
import signal

import jax
import jax.numpy as jnp

from experiments.faults import runs
from experiments.faults.outcome import Outcome
from segjax.runs import checkpoint, event_log, run_folder
from segjax.runs.progress import ProgressLine
from segjax.training import state

_EVERY = ("--config.every_steps.checkpoint=1",)
_CONSTANT = (*_EVERY, "--config.optim.schedule=constant")  # else nothing is learnt at step 2^30
_NEVER = {"kind": "nan", "steps": [-7, -6, -5]}  # the same program, as its rounding is compared
_BATCH = 8
_EDGES = {"2^31": 2**31, "2^32": 2**32, "2^33": 2**33}
_CLOCKS = {
    "an hour back": -3600.0,
    "a day back": -86400.0,
    "a year ahead": 3.2e7,
    "to 1970": -1.7e9,
}


def run(folder: pathlib.Path, count: int, seed: int = 0) -> list[Outcome]:
    """Tries `count` faults of all kinds in turn."""
    chosen, outcomes = random.Random(seed), list[Outcome]()
    whole = folder / "whole"
    runs.whole(whole, *_EVERY)
    runs.whole(folder / "never", *_EVERY, faults=[_NEVER])
    constant = folder / "constant"
    runs.whole(constant, *_CONSTANT)
    progress = ProgressLine("numbers", count)
    for number in range(count):
        workdir, turn = folder / str(number), number // 4
        match number % 4:
            case 0:
                done = _skipped(workdir, chosen.randrange(2, 12))
            case 1:
                done = _ended(workdir, folder / "never", chosen.randrange(1, 9))
            case 2:
                done = _clock(workdir, whole, [*_CLOCKS][turn % len(_CLOCKS)], chosen)
            case _:
                done = _edge(workdir, constant, [*_EDGES][turn % len(_EDGES)])
        outcomes.append(done)
        progress.show(number + 1)
    return outcomes


def _skipped(workdir: pathlib.Path, step: int) -> Outcome:
    """One step without a finite loss: its batch is kept, the weights are those of before."""
    fault, case = "a loss of nan at one step", f"step {step}"
    status, said = runs.train(workdir, *_EVERY, faults=[{"kind": "nan", "steps": [step]}]).end()
    if status != 0 or "Traceback" in said:
        return Outcome(fault, case, "traceback", f"{status}: {said[-600:]}")
    told = f"Step {step} was not finite and is skipped; its batch:" in said
    kept = (workdir / "nonfinite" / f"step-{step:07d}.npz").exists()
    before, after = (_state(workdir, at) for at in (step - 1, step))
    changed = [name for name in before if before[name] != after[name] and name not in _COUNTERS]
    learns = any(after[n] != v for n, v in _state(workdir, 12).items() if n.startswith("['params'"))
    last = max(event["step"] for event in event_log.read(workdir))
    if told and kept and not changed and last == 12 and (learns or step == 12):
        return Outcome(fault, case, "survived", "its batch is kept, the weights are as before")
    return Outcome(fault, case, "silent", f"{told}, {kept}, {changed}, {learns}, {last}")


_COUNTERS = ("['step']", "['skipped']")


def _ended(workdir: pathlib.Path, whole: pathlib.Path, step: int) -> Outcome:
    """Three such steps in a row end the run; when the cause is mended it goes on from before."""
    steps = [step, step + 1, step + 2]
    fault, case = "a loss of nan that stays", f"steps {step} to {step + 2}"
    child = runs.train(
        workdir, *_EVERY, "--config.stop.skipped=3", faults=[{"kind": "nan", "steps": steps}]
    )
    status, said = child.end()
    if "--replay=" not in (runs.refusal(status, said) or ""):
        return Outcome(fault, case, "traceback", f"{status}: {said[-600:]}")
    for at in checkpoint.steps_in(workdir / "checkpoints"):
        if at >= step:  # a user goes back to before, as the message says
            shutil.rmtree(workdir / "checkpoints" / str(at))
    shutil.rmtree(workdir / "nonfinite")
    end = runs.train(workdir, *_EVERY, "--config.stop.skipped=3", faults=[_NEVER]).end()
    return runs.judged(fault, case, workdir, whole, *end, but=("config.json",))


def _clock(workdir: pathlib.Path, whole: pathlib.Path, name: str, chosen: random.Random) -> Outcome:
    """The clock jumps during a run that is killed after it, too."""
    jump = {"kind": "clock", "phase": "a step", "count": chosen.randrange(1, 7)}
    child = runs.train(workdir, *_EVERY, faults=[jump | {"seconds": _CLOCKS[name]}])
    child.reached("a step", 8)
    child.send(signal.SIGKILL)
    child.end()
    if not child.faults():
        raise RuntimeError("The clock did not jump.")
    end = runs.train(workdir, *_EVERY).end()
    return runs.judged("a clock that jumps", name, workdir, whole, *end)


def _edge(workdir: pathlib.Path, before: pathlib.Path, name: str) -> Outcome:
    """Examples pass a power of two: a run that is killed there ends as one that is not."""
    fault, case = "a counter that passes 2^31, 2^32 or 2^33", f"example {name}"
    first, whole = _EDGES[name] // _BATCH - 4, workdir.with_name(f"{workdir.name}-whole")
    for copy in (workdir, whole):
        _moved(before, copy, first)
    flags = (*_CONSTANT, f"--config.total_steps={first + 8}")
    runs.whole(whole, *flags)
    child = runs.train(workdir, *flags)
    child.reached("a step", 4)
    child.send(signal.SIGKILL)
    child.end()
    end = runs.train(workdir, *flags).end()
    losses = [event["train/loss"] for event in event_log.read(whole) if "train/loss" in event]
    if len(set(losses[-8:])) < 8:
        return Outcome(fault, case, "silent", f"losses repeat: {losses[-8:]}")
    return runs.judged(fault, case, workdir, whole, *end)


def _moved(whole: pathlib.Path, copy: pathlib.Path, step: int) -> None:
    """A copy of a run whose only checkpoint claims to be of another step."""
    shutil.copytree(whole, copy)
    config = run_folder.read_config(copy)
    with checkpoint.Checkpoints(copy / "checkpoints", **config.best) as checkpoints:
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        ts, meta = checkpoints.restore_fields({}, which="latest", on=device)
        newest = int(ts["step"])
        checkpoints.save(state.TrainState(**ts | {"step": jnp.int32(step)}), step, meta=meta)
        checkpoints.wait()
    for at in range(newest + 1):
        shutil.rmtree(copy / "checkpoints" / str(at), ignore_errors=True)


def _state(workdir: pathlib.Path, step: int) -> dict[str, bytes]:
    return runs.state_of(workdir, str(step))
