"""Trainings in processes of their own, and what their run folders tell."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from experiments.shared import pages


def train(
    flags: Sequence[str], workdir: pathlib.Path, cache: pathlib.Path, *, steps: int, limit: int = 0
) -> None:
    """Trains, and evaluates once, at the end.

    Args:
        flags: of segjax.main, with the recipe.
        workdir: the run folder.
        cache: keeps compiled programs from one run to the next.
        steps: of training.
        limit: images of the evaluation; 0 takes all.
    """
    command = [sys.executable, "-m", "segjax.main", *flags, f"--workdir={workdir}"]
    command += [f"--config.total_steps={steps}", f"--config.eval.limit={limit}"]
    command += [f"--config.every_steps.{key}={steps}" for key in ("eval", "checkpoint")]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True, env=environment, cwd=pages.ROOT)


def events(workdir: pathlib.Path) -> list[dict[str, float]]:
    """The lines of the log."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def rates(workdir: pathlib.Path) -> list[float]:
    """Images/s of every log event, augmentation and loader included."""
    key = "train/images_per_s"
    return [event[key] for event in events(workdir) if key in event]


def batch_size(workdir: pathlib.Path) -> int:
    """The batch size of the run."""
    return json.loads((workdir / "config.json").read_text())["batch_size"]
