"""A verb in a process that tells what it does, and has faults in it.

    python -m experiments.faults.child FAULTS MODULE FLAG...

FAULTS is JSON, a list of the arguments of functions in KINDS, with their name as "kind". The
process writes a line for every mark into the file descriptor of $FAULTS_MARKS: begin and end of a
phase, a file that is opened for writing, and each fault that occurs.
"""

import builtins
import errno
import functools
import importlib
import io
import json
import os
import pathlib
import re
import resource
import runpy
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

PHASES = {
    "compilation": "segjax.training.inputs:compiled",
    "a step": "segjax.training.monitor:Monitor.step",
    "a save": "segjax.runs.checkpoint:Checkpoints.save",
    "an evaluation": "segjax.training.monitor:Monitor.evaluate",
    "the files of an evaluation": "segjax.evaluation.report:write",
    "the scores of a checkpoint": "segjax.runs.checkpoint:Checkpoints.record",
    "drawing": "segjax.pictures.charts:curves",
    "the end": "segjax.runs.checkpoint:Checkpoints.close",
}
"""Phase -> the function that it is, beside "the start", which lasts until the first of these."""

_marks = int(os.environ.get("FAULTS_MARKS", "2"))
_actions: dict[tuple[str, int], Callable[[], None]] = {}  # by phase and how many times it began
_begun: dict[str, int] = {}


def mark(*words: object) -> None:
    """Tells the process that watches this one."""
    line = json.dumps([time.monotonic(), *map(str, words)]) + "\n"
    os.write(_marks, line.encode())


def at(phase: str, count: int, action: Callable[[], None]) -> None:
    """Does something when a phase begins for the count-th time."""
    _actions[phase, count] = action


def watched(place: str, phase: str) -> None:
    """Makes a function tell when it begins and ends."""
    owner, name, original = _found(place)

    @functools.wraps(original)
    def told(*arguments: Any, **options: Any) -> Any:
        _begun[phase] = _begun.get(phase, 0) + 1
        mark("begin", phase, _begun[phase])
        if (phase, _begun[phase]) in _actions:
            _actions.pop((phase, _begun[phase]))()
        try:
            return original(*arguments, **options)
        finally:
            mark("end", phase, _begun[phase])

    setattr(owner, name, told)


def _found(place: str) -> tuple[Any, str, Any]:
    """Owner, name and value of "module:Name.name"."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for part in parents:
        owner = getattr(owner, part)
    return owner, name, getattr(owner, name)


def limit(phase: str, count: int, size: int) -> None:
    """From that moment on no file may become longer: a disk that is full, to C++ code too."""

    def lower() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        mark("fault", f"files of {size} bytes at most")

    at(phase, count, lower)


def read_only(phase: str, count: int, folder: str) -> None:
    """From that moment on a folder may not be written to, nor by root."""

    def forbid() -> None:
        for path in [pathlib.Path(folder), *pathlib.Path(folder).rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        for module in ("matplotlib.figure", "matplotlib.font_manager"):
            importlib.import_module(module)  # which another user may not be allowed to read
        if os.geteuid() == 0:
            os.seteuid(65534)  # root may write everywhere
        mark("fault", f"{folder} is read-only")

    at(phase, count, forbid)


def clock(phase: str, count: int, seconds: float) -> None:
    """From that moment on the clock shows another time."""

    def turn() -> None:
        before = time.time
        time.time = lambda: before() + seconds  # type: ignore[assignment]
        mark("fault", f"the clock jumps by {seconds} s")

    at(phase, count, turn)


def nan(steps: list[int]) -> None:
    """The loss of these steps is nan."""
    import jax.numpy as jnp

    _, _, original = _found("segjax.training.steps:_summed_gradients")

    @functools.wraps(original)
    def spoilt(of_part: Any, ts: Any, *others: Any) -> Any:
        (grads, total, *rest), scalars = original(of_part, ts, *others)
        hit = jnp.isin(ts.step + 1, jnp.array(steps))
        return (grads, jnp.where(hit, jnp.nan, total), *rest), scalars

    importlib.import_module("segjax.training.steps")._summed_gradients = spoilt
    mark("fault", f"the loss of steps {steps} is nan")


def writes(folder: str, pattern: str = "", number: int = 0, error: str = "") -> None:
    """Tells of files that are opened for writing in a folder; the number-th of a pattern fails.

    With EACCES it does not open, with ENOSPC it opens and nothing can be written.
    """
    opened, replaced = io.open, os.replace
    count, spent = 0, False

    def watching(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        nonlocal count, spent
        inside = isinstance(file, str | os.PathLike) and _inside(file, folder)
        if not inside or not set(mode) & set("wax+"):
            return opened(file, mode, *arguments, **options)
        count += re.search(pattern, str(file)) is not None
        mark("write", count, file)
        if count != number or spent:
            return opened(file, mode, *arguments, **options)
        code, spent = getattr(errno, error), True
        mark("fault", error, file)
        if code != errno.ENOSPC:
            raise OSError(code, os.strerror(code), str(file))
        stream = io.BufferedWriter(_Full(file, mode.replace("b", "").replace("t", "")))
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding="utf-8")

    def replacing(source: Any, target: Any, **options: Any) -> None:
        mark("moved", source, target)
        replaced(source, target, **options)

    io.open = builtins.open = watching  # type: ignore[assignment]
    os.replace = replacing


class _Full(io.FileIO):
    """A file on a full disk."""

    def write(self, data: Any) -> int:
        """Fails."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _inside(path: Any, folder: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep)


KINDS = {f.__name__: f for f in (limit, read_only, clock, nan, writes)}


def main(faults: list[dict], module: str, flags: list[str]) -> None:
    """Runs the verb."""
    # In the background or under nohup these would not be heard.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    cli = importlib.import_module("segjax.cli")
    start = cli.start_processes

    def started(*arguments: Any) -> None:
        mark("begin", "the start", 1)
        start(*arguments)
        # Not before: these modules may touch the devices.
        for phase, place in PHASES.items():
            watched(place, phase)
        for fault in later:
            KINDS[fault.pop("kind")](**fault)

    cli.start_processes = started
    at_once = [fault for fault in faults if fault["kind"] == "writes"]
    later = [fault for fault in faults if fault["kind"] != "writes"]
    for fault in at_once:
        KINDS[fault.pop("kind")](**fault)
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:])
