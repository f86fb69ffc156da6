"""Files that change and workers that die while a run reads them: saved, said, and gone on."""

import os
import pathlib
import random
import shutil
import signal

import cv2
import numpy as np

from experiments.faults import runs
from experiments.faults.outcome import Outcome
from segjax.data import png
from segjax.runs import checkpoint, event_log
from segjax.runs.progress import ProgressLine

_IMAGES = 10  # in train; a batch is eight
_SIZE = (48, 64)
_BUT = ("config.json",)  # says how many workers there are


def run(folder: pathlib.Path, count: int, seed: int = 0) -> list[Outcome]:
    """Tries `count` faults: of images and masks, with and without worker processes."""
    chosen, outcomes = random.Random(seed), list[Outcome]()
    data = folder / "data"
    _make(data)
    whole = folder / "whole"
    _train(whole, data, 0).undisturbed()
    progress = ProgressLine("data", count)
    faults = [*_CHANGES, "a worker process killed"]
    for number in range(count):
        fault, workers = faults[number % len(faults)], 2 * (number // len(faults) % 2)
        workdir = folder / str(number)
        if fault == "a worker process killed":
            outcomes.append(_worker_killed(workdir, whole, data, chosen))
        else:
            outcomes.append(_changed(fault, workers, workdir, whole, data, chosen))
        progress.show(number + 1)
    return outcomes


def _make(root: pathlib.Path) -> None:
    """Images of patches, one of them with an EXIF orientation, and three classes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", _IMAGES), ("val", 4)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            label = np.kron(rng.integers(0, 3, (6, 8)), np.ones((8, 8))).astype(np.uint8)
            noise = rng.integers(0, 90, (*_SIZE, 3))
            image = (80 * label[..., None] + noise).astype(np.uint8)
            cv2.imwrite(str(root / "images" / split / f"{i}.jpg"), image)
            (root / "labels" / split / f"{i}.png").write_bytes(
                png.encode_indices(label, [(0, 0, 0), (255, 0, 0), (0, 255, 0)])
            )
    (root / "classes.txt").write_text("a\nb\nc\n")
    turned = root / "images" / "train" / "0.jpg"
    jpeg = turned.read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"
    turned.write_bytes(
        jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    )


def _train(workdir: pathlib.Path, data: pathlib.Path, workers: int) -> runs.Child:
    return runs.train(
        workdir,
        f"--config.data.root={data}",
        "--config.total_steps=60",
        "--config.every_steps.eval=30",
        "--config.every_steps.checkpoint=25",
        "--config.best.keep=30",
        "--config.loader.prefetch=1",
        f"--config.loader.workers={workers}",
        recipe="fcn8s:smoke,folder",
    )


def _deleted(path: pathlib.Path, _: pathlib.Path) -> None:
    path.unlink()


def _replaced(path: pathlib.Path, other: pathlib.Path) -> None:
    shutil.copyfile(other, path)


def _truncated(path: pathlib.Path, _: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


_CHANGES = {
    "an image deleted": ("images", _deleted),
    "an image replaced": ("images", _replaced),
    "an image truncated": ("images", _truncated),
    "a mask deleted": ("labels", _deleted),
    "a mask replaced": ("labels", _replaced),
    "a mask truncated": ("labels", _truncated),
}


def _changed(
    name: str,
    workers: int,
    workdir: pathlib.Path,
    whole: pathlib.Path,
    data: pathlib.Path,
    chosen: random.Random,
) -> Outcome:
    """A file changes while the run trains, and is mended when it has ended."""
    kind, change = _CHANGES[name]
    fault, case = f"{name} during training", f"{workers} workers"
    suffix = ".jpg" if kind == "images" else ".png"
    which, other = chosen.sample(range(_IMAGES), 2)
    path, another = (data / kind / "train" / f"{i}{suffix}" for i in (which, other))
    stored, dates = path.read_bytes(), path.stat()
    child = _train(workdir, data, workers)
    child.reached("a step", chosen.randrange(2, 8))
    change(path, another)
    status, said = child.end()
    told = _told(fault, case, workdir, status, said, path.name)
    path.write_bytes(stored)
    os.utime(path, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    if told is not None:
        return told
    child = _train(workdir, data, workers)
    return runs.judged(fault, case, workdir, whole, *child.end(), but=_BUT)


def _worker_killed(
    workdir: pathlib.Path, whole: pathlib.Path, data: pathlib.Path, chosen: random.Random
) -> Outcome:
    fault = "a worker process killed"
    child = _train(workdir, data, 2)
    child.reached("a step", chosen.randrange(2, 8))
    workers = _children(child.process.pid)
    if len(workers) < 2:
        raise RuntimeError(f"There are no workers, but {workers}.")
    os.kill(chosen.choice(workers), signal.SIGKILL)
    status, said = child.end()
    told = _told(fault, f"of {len(workers)}", workdir, status, said, "A worker process")
    if told is not None:
        return told
    child = _train(workdir, data, 2)
    return runs.judged(fault, f"of {len(workers)}", workdir, whole, *child.end(), but=_BUT)


def _children(pid: int) -> list[int]:
    """Processes that a process has started and that read images."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"spawn_main" in command:
            found.append(int(path.name))
    return found


def _told(
    fault: str, case: str, workdir: pathlib.Path, status: int | None, said: str, name: str
) -> Outcome | None:
    """What is wrong with the end of the run that met the fault; None if nothing is."""
    if status == 0:
        return Outcome(fault, case, "silent", "the run went on to its end")
    if name not in (runs.refusal(status, said) or ""):
        return Outcome(fault, case, "traceback", f"{status}: {said[-600:]}")
    logged = max((event["step"] for event in event_log.read(workdir)), default=0)
    saved = max(checkpoint.steps_in(workdir / "checkpoints"), default=0)
    if saved < logged:
        return Outcome(fault, case, "lost", f"step {logged} is logged, {saved} saved")
    return None
