"""Runs of the verbs, in this process and in others."""

import contextlib
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import ml_collections
import numpy as np

from segjax.pictures import charts
from segjax.runs import checkpoint, run_folder
from segjax.training import loop
from tests import tiny

ROOT = pathlib.Path(__file__).parents[1]


def config(**changes: Any) -> ml_collections.ConfigDict:
    """Six steps of FCN-8s's smoke run on scenes: the short network, batch norm and dropout on."""
    return tiny.short_config(
        **{
            **tiny.NOISY,
            "total_steps": 6,
            "every_steps__eval": 3,
            "every_steps__checkpoint": 2,
            "best__keep": 10,
            "ema_decay": 0.5,
            **changes,
        }
    )


def train_plainly(made: ml_collections.ConfigDict, workdir: pathlib.Path, **options: Any) -> None:
    """`loop.run` without its charts, which take a third of six steps."""
    with mock.patch.multiple(charts, curves=mock.DEFAULT, class_chart=mock.DEFAULT):
        loop.run(made, workdir, **options)


def environment(**extra: str) -> dict[str, str]:
    """Of a verb's process: CPU, one device, this run's own caches."""
    cache = jax.config.jax_compilation_cache_dir
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **extra,
    }


def verb(
    name: str, *flags: str, cwd: pathlib.Path = ROOT, **extra: str
) -> subprocess.CompletedProcess:
    """Runs `python -m segjax.<name>` to its end."""
    return subprocess.run(
        [sys.executable, "-m", f"segjax.{name}", *flags],
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def script(text: str) -> subprocess.CompletedProcess:
    """Runs a program of a few lines to its end, which must come within a minute."""
    return subprocess.run(
        [sys.executable, "-c", text],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def forked(
    name: str, *flags: str, cwd: pathlib.Path = ROOT, **extra: str
) -> subprocess.CompletedProcess:
    """The same as `verb`, in a fork of a process that has imported the verbs: see `forks`."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = (pathlib.Path(folder, which) for which in ("output", "errors"))
        output.touch()
        errors.touch()
        request = {
            "module": f"segjax.{name}",
            "arguments": flags,
            "folder": str(cwd),
            "environment": environment(**extra),
            "output": str(output),
            "errors": str(errors),
        }
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        print(json.dumps(request), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(
            [name, *flags], status, output.read_text(), errors.read_text()
        )


@functools.cache
def _server() -> subprocess.Popen:
    """The process that is forked; it ends with this one, whose end closes its input."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.forks"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(done: subprocess.CompletedProcess) -> str:
    """The one line that a verb with bad input ends with."""
    lines = [text for text in done.stderr.splitlines() if text.startswith("segjax: ")]
    assert done.returncode == 1, done.stderr
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return lines[0]


def final(workdir: pathlib.Path, which: str = "latest") -> dict[str, np.ndarray]:
    """Path -> array of the whole train state that a checkpoint holds."""
    best = run_folder.read_config(workdir).best
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with checkpoint.Checkpoints(workdir / "checkpoints", **best, read_only=True) as checkpoints:
        ts, _ = checkpoints.restore_fields({}, which=which, on=device)
    return tiny.by_name(ts)


def hear() -> None:
    """Lets Ctrl-C and a lost terminal be heard: in the background or under nohup they are not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Context with the handlers of `hear`; those from before come back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    hear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
