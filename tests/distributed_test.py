import os
import shutil
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from segjax import distributed, sharding
from segjax.errors import InputError
from segjax.runs import event_log
from segjax.training import assembly
from tests import programs, tiny


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def start(command: list[str], devices: int = 2) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=programs.ROOT,
        env=programs.environment(JAX_NUM_CPU_DEVICES=str(devices)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_verbs(
    workdir, *flags: str, processes: int = 2, devices: int = 2
) -> list[subprocess.Popen]:
    port = free_port()
    command = [
        "segjax.main",
        "--config=configs/fcn8s.py:smoke",
        "--config.model.backbone.width=4",
        "--config.model.backbone.fc_width=8",
        f"--workdir={workdir}",
        *flags,
    ]
    peers = [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}"]
    ids = [[*peers, f"--process_id={i}"] for i in range(processes)] if processes > 1 else [[]]
    return [start([*command, *more], devices) for more in ids]


def finish(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said


def test_two_processes_step_like_one(tmp_path):
    """Two devices each, batch norm and dropout on, a shard without void and one of void alone."""
    port = free_port()
    out = tmp_path / "params.npz"
    finish([start(["tests.two_processes", port, str(i), str(out)]) for i in (0, 1)])
    training = tiny.assemble(tiny.short_config(**tiny.NOISY), 1)
    batch = sharding.put_batch(training.mesh, tiny.batch(0))
    ts, _ = training.step(tiny.awake_state(training), batch)
    tiny.assert_close(dict(np.load(out)), (ts.params, ts.batch_stats))


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_goes_on_in_one(tmp_path):
    finish(start_verbs(tmp_path))
    assert programs.final(tmp_path)["step"] == 4
    done = programs.verb(
        "main",
        "--config=configs/fcn8s.py:smoke",
        "--config.model.backbone.width=4",
        "--config.model.backbone.fc_width=8",
        f"--workdir={tmp_path}",
        "--config.total_steps=6",
    )
    assert done.returncode == 0, done.stderr
    assert "Resumed from step 4" in done.stderr
    steps = [e["step"] for e in event_log.read(tmp_path) if "train/loss" in e]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_eight_processes_that_are_killed_go_on_as_eight_two_and_one(tmp_path):
    """As if nothing had happened: bit for bit as eight, within rounding on other devices."""
    # Plain gradient descent: AdamW makes a rate's worth of the rounding of a gradient near zero.
    flags = (
        "--config.total_steps=14",
        "--config.every_steps.checkpoint=4",
        "--config.every_steps.eval=14",
        "--config.optim.name=sgd",
        "--config.optim.lr=0.01",
    )
    finish(start_verbs(tmp_path / "whole", *flags, processes=8, devices=1))
    killed = tmp_path / "killed"
    processes = start_verbs(killed, *flags, processes=8, devices=1)
    while not any(e["step"] >= 6 for e in event_log.read(killed)):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()
    assert not any(e["step"] == 14 for e in event_log.read(killed))
    expected, losses = programs.final(tmp_path / "whole"), losses_of(tmp_path / "whole")
    for count, devices, bound in ((8, 1, 0.0), (2, 2, 1e-5), (1, 1, 1e-5)):
        folder = tmp_path / f"{count}x{devices}"
        shutil.copytree(killed, folder)
        finish(start_verbs(folder, *flags, processes=count, devices=devices))
        found = losses_of(folder)
        assert found.keys() == losses.keys()
        for step, loss in losses.items():
            assert found[step] == pytest.approx(loss, rel=0, abs=bound), (count, step)
        for name, value in programs.final(folder).items():
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=bound, err_msg=name)


def losses_of(workdir) -> dict[int, float]:
    """Step -> its loss; a step that was taken again counts as it was then."""
    return {e["step"]: e["train/loss"] for e in event_log.read(workdir) if "train/loss" in e}


@pytest.mark.slow
def test_the_death_of_a_process_is_noticed_in_seconds(tmp_path):
    processes = start_verbs(tmp_path, "--config.total_steps=2000")
    while not (tmp_path / "metrics.jsonl").exists() or not event_log.read(tmp_path):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.2)
    processes[1].kill()
    _, said = processes[0].communicate(timeout=60)
    assert processes[0].returncode != 0
    # JAX's own word where its service is faster than the connection that broke.
    assert "segjax: Another process of this run has ended" in said or "another task died" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_an_order_to_stop_given_to_one_process_saves_and_ends_both(tmp_path):
    processes = start_verbs(tmp_path, "--config.total_steps=20000")
    while not (tmp_path / "metrics.jsonl").exists() or not event_log.read(tmp_path):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.2)
    processes[1].terminate()
    finish(processes)
    last = event_log.read(tmp_path)[-1]["step"]
    assert programs.final(tmp_path)["step"] == last


def test_space_must_divide_the_devices_of_a_process():
    config = tiny.config(mesh__space=3)
    with pytest.raises(InputError, match="must divide the 8 devices"):
        assembly.assemble(config, tiny.SPEC, None, jax.devices())


@pytest.mark.slow
@pytest.mark.parametrize("views", ["single", "single, scales=(0.5, 1.0), flip=True"])
def test_two_processes_evaluate_like_one(tmp_path, views):
    """Every image once, in its place, whoever saw it."""
    workdir = tmp_path / "run"
    finish(start_verbs(workdir))
    found = []
    for processes in (1, 2):
        port = free_port()
        command = [
            "segjax.evaluate",
            f"--workdir={workdir}",
            "--step=latest",
            f"--protocol={views}",
        ]
        if processes == 1:
            finish([start(command)])
        else:
            peers = [f"--coordinator=127.0.0.1:{port}", "--processes=2"]
            finish([start([*command, *peers, f"--process_id={i}"]) for i in (0, 1)])
        (path,) = (
            p for p in workdir.glob("eval-val*.npz") if views == "single" or p.stem != "eval-val"
        )
        with np.load(path) as arrays:
            found.append(dict(arrays))
        assert len(list(workdir.glob("*-labels*.zip"))) == processes
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        np.testing.assert_array_equal(found[1][key], value, err_msg=key)


@pytest.mark.parametrize(
    ("names", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4"}, False),  # salloc
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False),  # the script of sbatch
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, False),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, True),
        ({"PMI_SIZE": "2"}, False),
        ({"PMI_SIZE": "2", "PMI_RANK": "1"}, True),
        ({"PMI_SIZE": "many", "PMI_RANK": "1"}, False),
        ({"JAX_COORDINATOR_ADDRESS": "host:1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ],
)
def test_several_processes_are_those_that_a_launcher_has_started(names, several, monkeypatch):
    asked = []
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "PMI_", "TPU_", "JAX_COORD")):
            monkeypatch.delenv(name)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: asked.append(True))
    distributed.start()
    assert bool(asked) == several


ALONE = {"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}


@pytest.mark.parametrize(
    ("names", "gpus"),
    [
        ({}, None),
        (ALONE, None),  # no GPU is known of
        (ALONE | {"SLURM_GPUS_ON_NODE": "8"}, [*range(8)]),
        (ALONE | {"CUDA_VISIBLE_DEVICES": "4,5,6"}, [0, 1, 2]),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_GPUS_ON_NODE": "8"}, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "8", "CUDA_VISIBLE_DEVICES": "3"}, [0]),  # bound to one
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "CUDA_VISIBLE_DEVICES": "0,1"}, [0, 1]),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, None),
    ],
)
def test_a_process_alone_on_its_host_takes_all_gpus_of_it(names, gpus, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "CUDA_VISIBLE")):
            monkeypatch.delenv(name)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert distributed._local_gpus() == gpus


BROKEN = "UNKNOWN: Gloo AllGather failed: [pair.cc:547] Connection closed by peer [127.0.0.1]:32437"


@pytest.mark.parametrize(
    ("said", "joined", "told"),
    [(BROKEN, True, True), (BROKEN, False, False), ("RESOURCE_EXHAUSTED", True, False)],
)
def test_the_end_of_another_process_is_told_as_such(said, joined, told, monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: joined)
    error = distributed.lost(RuntimeError(said))
    assert (error is not None) == told
    if error is not None:
        assert "Start all processes again" in str(error)


def test_a_launcher_that_jax_does_not_know_is_one_line(monkeypatch):
    def refuse(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "0")
    with pytest.raises(InputError, match="coordinator_address should.*or --distributed=off"):
        distributed.start()
