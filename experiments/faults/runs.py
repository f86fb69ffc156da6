"""Small runs in processes of their own: started, disturbed, ended, compared."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence

import jax
import numpy as np

from experiments.faults.outcome import Outcome
from experiments.shared.pages import ROOT
from segjax.runs import checkpoint, event_log, run_folder

STEPS = 12
FLAGS = (
    "--config.model.backbone.width=4",
    "--config.model.backbone.fc_width=8",
    f"--config.total_steps={STEPS}",
    "--config.every_steps.eval=4",
    "--config.every_steps.checkpoint=3",
    "--config.best.keep=20",
)
"""Of FCN-8s on the embedded scenes: twelve steps, three evaluations, six checkpoints."""

SECONDS = 300
"""After which a process counts as hung."""

_CHANGING = ("time", "images_per_s", "step_ms", "data_wait", "peak_gib")
_NOT_COMPARED = ("checkpoints", "tensorboard", "metrics.jsonl", "pictures/curves.png", "lock.json")


@dataclasses.dataclass(frozen=True)
class Mark:
    """A line that a child wrote: when, in seconds of the machine, and its words."""

    time: float
    words: tuple[str, ...]


class Child:
    """A verb in a process of its own.

    Args:
        flags: of the verb.
        faults: see `child`.
        verb: name of its module in segjax.
    """

    def __init__(self, *flags: str, faults: Sequence[dict] = (), verb: str = "main"):
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "experiments.faults.child", json.dumps(list(faults))]
        self.process = subprocess.Popen(
            [*command, f"segjax.{verb}", *flags],
            cwd=ROOT,
            env=_environment() | {"FAULTS_MARKS": str(writing)},
            pass_fds=[writing],
            stdout=subprocess.PIPE,  # a file would be subject to the limits of `child.limit`
            stderr=subprocess.STDOUT,
        )
        os.close(writing)
        self.marks: list[Mark] = []
        self._changed = threading.Condition()
        self._over = False
        self._said = b""
        self._readers = [
            threading.Thread(target=self._read, args=(reading,), daemon=True),
            threading.Thread(target=self._listen, daemon=True),
        ]
        for thread in self._readers:
            thread.start()

    def reached(self, phase: str, count: int = 1) -> bool:
        """Waits until a phase begins for the count-th time; False if the process ended before."""
        wanted = ("begin", phase, str(count))
        with self._changed:
            self._changed.wait_for(
                lambda: self._over or any(mark.words == wanted for mark in self.marks), SECONDS
            )
            return any(mark.words == wanted for mark in self.marks)

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal; False if the process has ended."""
        if self.process.poll() is not None:
            return False
        self.process.send_signal(number)
        return True

    def end(self) -> tuple[int | None, str]:
        """Waits for the end: status, None for one that hangs and was killed; and what was said."""
        try:
            status: int | None = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = None
        for thread in self._readers:
            thread.join(5)
        return status, self._said.decode(errors="replace")

    def undisturbed(self) -> "Child":
        """Waits for the end; RuntimeError unless it is a good one."""
        status, said = self.end()
        if status != 0:
            raise RuntimeError(f"The undisturbed run ended with {status}: {said[-3000:]}")
        return self

    def doing(self) -> str:
        """The phase that was last told of."""
        begun = [mark.words[1] for mark in self.marks if mark.words[0] == "begin"]
        return begun[-1] if begun else "imports"

    def faults(self) -> list[str]:
        """The faults that occurred inside of the process."""
        return [" ".join(mark.words[1:]) for mark in self.marks if mark.words[0] == "fault"]

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said += line

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor) as lines:
            for line in lines:
                when, *words = json.loads(line)
                with self._changed:
                    self.marks.append(Mark(when, tuple(words)))
                    self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()


RECIPE = "fcn8s:smoke"


def train(workdir: pathlib.Path, *flags: str, recipe: str = RECIPE, **options) -> Child:
    """Starts the small run."""
    return Child(f"--config={recipe}", *FLAGS, *flags, f"--workdir={workdir}", **options)


def whole(workdir: pathlib.Path, *flags: str, **options) -> Child:
    """The small run, undisturbed and ended."""
    return train(workdir, *flags, **options).undisturbed()


def refusal(status: int | None, said: str) -> str | None:
    """The one line that a command ended with; None if it ended in another way."""
    lines = [line for line in said.splitlines() if line.startswith("segjax: ")]
    clear = status == 1 and len(lines) == 1 and "Traceback" not in said
    return lines[0] if clear else None


def durations(child: Child) -> dict[str, float]:
    """Phase -> seconds that it took at most in a run, and at least a tenth."""
    longest: dict[str, float] = {}
    begun: dict[str, float] = {}
    for mark in child.marks:
        what, phase, *_ = mark.words
        if what == "begin":
            begun[phase] = mark.time
        elif what == "end":
            longest[phase] = max(longest.get(phase, 0.1), mark.time - begun[phase])
    first = {mark.words[1]: mark.time for mark in reversed(child.marks) if mark.words[0] == "begin"}
    longest["the start"] = first["compilation"] - first["the start"]
    return longest


def differences(workdir: pathlib.Path, other: pathlib.Path) -> list[str]:
    """What two ended runs differ in: weights, optimiser, scores, log, files; rates and times not.

    What is missing in the first begins with "no ".
    """
    told = []
    for which in ("latest", "best"):
        a, b = (state_of(folder, which) for folder in (workdir, other))
        told += [f"{which} {name}" for name in b if name not in a or a[name] != b[name]]
    a, b = (_events(folder) for folder in (workdir, other))
    if a != b:
        gone = {step for step, _ in b} - {step for step, _ in a}
        told.append(f"no events of steps {sorted(gone)}" if gone else "events")
    a, b = (files_of(folder) for folder in (workdir, other))
    told += [f"no {name}" for name in sorted(b.keys() - a.keys())]
    told += [f"a file more: {name}" for name in sorted(a.keys() - b.keys())]
    told += [name for name in sorted(a.keys() & b.keys()) if a[name] != b[name]]
    if (workdir / "lock.json").exists():
        told.append("a lock is left")
    return told


def judged(
    fault: str,
    case: str,
    workdir: pathlib.Path,
    other: pathlib.Path,
    status: int | None,
    said: str,
    *,
    but: tuple[str, ...] = (),
) -> Outcome:
    """The outcome of a fault, by the end of the run that had it, or of the start after it.

    Args:
        fault, case: of the outcome.
        workdir: the run folder.
        other: that of an undisturbed run.
        status, said: the end of the last start.
        but: files that the fault itself makes differ.
    """
    if "Traceback" in said:
        return Outcome(fault, case, "traceback", said[said.index("Traceback") :][:1500])
    if status is None:
        return Outcome(fault, case, "lost", f"hung: {said[-300:]}")
    if status:
        return Outcome(fault, case, "lost", f"ended with {status}: {said[-300:]}")
    told = [text for text in differences(workdir, other) if text not in but]
    if told:
        lost = any(text.startswith("no ") for text in told)
        return Outcome(fault, case, "lost" if lost else "silent", "; ".join(told)[:600])
    return Outcome(fault, case, "survived", "the same end, bit for bit")


def state_of(workdir: pathlib.Path, which: str) -> dict[str, bytes]:
    """Path -> bytes of the train state in a checkpoint."""
    best = run_folder.read_config(workdir).best
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with checkpoint.Checkpoints(workdir / "checkpoints", **best, read_only=True) as checkpoints:
        ts, _ = checkpoints.restore_fields({}, which=which, on=device)
    leaves, _ = jax.tree_util.tree_flatten_with_path(ts)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def _events(workdir: pathlib.Path) -> list[tuple[int, dict]]:
    return [
        (event["step"], {k: repr(v) for k, v in event.items() if not k.endswith(_CHANGING)})
        for event in event_log.read(workdir)
    ]


def files_of(workdir: pathlib.Path) -> dict[str, object]:
    """Name -> what must be the same of a file, of all but logs and checkpoints."""
    found: dict[str, object] = {}
    for path in sorted(workdir.rglob("*")):
        name = path.relative_to(workdir).as_posix()
        if path.is_file() and not name.startswith(_NOT_COMPARED):
            found[name] = _arrays(path) if path.suffix == ".npz" else path.read_bytes()
    for step in checkpoint.steps_in(workdir / "checkpoints"):
        scores = workdir / "checkpoints" / str(step) / "metrics" / "metrics"
        if scores.exists():
            stored = json.loads(scores.read_text())
            found[f"scores of step {step}"] = {
                key: repr(value) for key, value in stored.items() if not key.endswith(_CHANGING)
            }
    if (workdir / "pictures" / "curves.png").exists():
        found["pictures/curves.png"] = "there"  # it shows rates
    return found


def _arrays(path: pathlib.Path) -> dict[str, bytes]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name].tobytes() for name in arrays}


def _environment() -> dict[str, str]:
    cache = pathlib.Path(tempfile.gettempdir()) / "segjax-faults-compiled"
    return {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_NUM_CPU_DEVICES": "1",
        **os.environ,
        "JAX_PLATFORMS": "cpu",
    }
