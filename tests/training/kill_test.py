"""Runs in processes of their own, ended from outside at moments that nobody chose."""

import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from segjax.errors import InputError
from segjax.runs import checkpoint, event_log, lock
from tests import programs, tiny

pytestmark = pytest.mark.slow

FLAGS = (
    "--config=configs/fcn8s.py:smoke",
    "--config.model.backbone.width=4",
    "--config.model.backbone.fc_width=8",
    "--config.total_steps=12",
    "--config.every_steps.eval=4",
    "--config.every_steps.checkpoint=3",
    "--config.best.keep=20",
)


def start(workdir: pathlib.Path, *flags: str) -> subprocess.Popen:
    """A training, its standard error readable."""
    return subprocess.Popen(
        [sys.executable, "-m", "segjax.main", *FLAGS, f"--workdir={workdir}", *flags],
        cwd=programs.ROOT,
        env=programs.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=programs.hear,
    )


def finish(process: subprocess.Popen, status: int = 0) -> str:
    """What a training said, once it has ended with a status."""
    _, said = process.communicate(timeout=300)
    assert process.returncode == status, said
    assert "Traceback" not in said
    return said


def wait_for(workdir: pathlib.Path, process: subprocess.Popen, step: int) -> None:
    """Waits until a step is in the log."""
    while not any(event["step"] >= step for event in event_log.read(workdir)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody ended, and the seconds that it took."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    begin = time.monotonic()
    finish(start(workdir))
    return workdir, time.monotonic() - begin


def scores(workdir: pathlib.Path) -> list[dict]:
    """Step and scores of all evaluations and training steps in the log."""
    names = ("step", "eval/miou", "eval/loss", "train/loss", "train/lr")
    return [{k: event[k] for k in names if k in event} for event in event_log.read(workdir)]


def assert_same_end(workdir: pathlib.Path, whole: pathlib.Path) -> None:
    for which in ("latest", "best"):
        tiny.assert_same_bits(programs.final(workdir, which), programs.final(whole, which))
    assert scores(workdir) == scores(whole)
    assert (workdir / "eval-val.json").read_text() == (whole / "eval-val.json").read_text()
    with np.load(workdir / "eval-val.npz") as a, np.load(whole / "eval-val.npz") as b:
        tiny.assert_same_bits(dict(a), dict(b))
    assert (workdir / "pictures" / "curves.png").exists()
    assert not (workdir / "lock.json").exists()


def test_a_run_killed_again_and_again_has_the_end_of_one_that_was_not(tmp_path, whole):
    whole, seconds = whole
    chance = random.Random(0)
    kills = 0
    for tries in range(6):
        process = start(tmp_path)
        try:
            # The first is certain to be killed, however fast the machine has become since.
            process.wait(timeout=chance.uniform(0.3, 1.1) * seconds if tries else 0.5)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    finish(start(tmp_path))
    assert kills > 0
    assert_same_end(tmp_path, whole)
    assert "the run is finished" in finish(start(tmp_path))


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_run_asked_to_stop_saves_and_says_how_it_ended(tmp_path, whole, number, status):
    process = start(tmp_path)
    wait_for(tmp_path, process, 2)
    process.send_signal(number)
    assert "is saved" in finish(process, status)
    saved = max(checkpoint.steps_in(tmp_path / "checkpoints"))
    assert saved >= max(event["step"] for event in event_log.read(tmp_path))
    finish(start(tmp_path))
    assert_same_end(tmp_path, whole[0])


def test_an_order_during_the_start_ends_with_status_0_and_the_folder_starts_again(tmp_path, whole):
    process = start(tmp_path)
    time.sleep(0.5 * whole[1])
    if not event_log.read(tmp_path):
        process.send_signal(signal.SIGTERM)
    finish(process)
    finish(start(tmp_path))
    assert_same_end(tmp_path, whole[0])


def test_a_second_run_in_the_folder_is_refused_and_changes_nothing(tmp_path):
    process = start(tmp_path, "--config.total_steps=100000")
    wait_for(tmp_path, process, 1)
    other = programs.verb("main", *FLAGS, f"--workdir={tmp_path}", "--config.total_steps=200000")
    assert f"is in use by process {process.pid} on " in programs.line(other)
    assert json.loads((tmp_path / "config.json").read_text())["total_steps"] == 100000
    with pytest.raises(InputError, match="in use"):
        lock.refuse_if_held(tmp_path)
    process.send_signal(signal.SIGTERM)
    finish(process)
