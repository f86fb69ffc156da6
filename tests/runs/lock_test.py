"""One run writes into a folder at a time."""

import json
import multiprocessing
import os
import pathlib
import subprocess
import sys

import pytest

from segjax.errors import InputError
from segjax.runs import lock
from tests import programs


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.1)


def written(workdir: pathlib.Path, **changes) -> pathlib.Path:
    """The lock of this process, changed: such as of another machine."""
    with lock.held(workdir):
        fields = json.loads((workdir / "lock.json").read_text())
    path = workdir / "lock.json"
    path.write_text(json.dumps(fields | changes))
    return path


def dead_pid() -> int:
    process = multiprocessing.get_context("spawn").Process()
    process.start()
    process.join()
    return process.pid


def test_a_folder_is_held_by_one_run_and_given_back(tmp_path):
    workdir = tmp_path / "run"
    with lock.held(workdir) as held:
        held.check()
        with (
            pytest.raises(InputError, match=rf"in use by process {os.getpid()} on .*, since 20"),
            lock.held(workdir),
        ):
            pass
        with pytest.raises(InputError, match="in use by process"):
            lock.refuse_if_held(workdir)
        assert [path.name for path in workdir.iterdir()] == ["lock.json"]
    assert list(workdir.iterdir()) == []
    lock.refuse_if_held(workdir)
    with lock.held(workdir):
        pass


def test_the_lock_of_a_process_that_died_on_this_machine_is_taken_at_once(tmp_path):
    written(tmp_path, pid=dead_pid())
    with lock.held(tmp_path) as held:
        held.check()


def test_a_process_number_that_is_used_again_is_not_the_process(tmp_path):
    written(tmp_path, started="17")
    with lock.held(tmp_path) as held:
        held.check()


def test_a_lock_of_another_machine_without_sign_of_life_is_taken(tmp_path, quick):
    path = written(tmp_path, machine="elsewhere", host="elsewhere")
    os.utime(path, (2e9, 2e9))  # its clock is ahead
    with lock.held(tmp_path) as held:
        held.check()


def test_a_lock_of_another_machine_that_is_renewed_is_held(tmp_path, quick):
    with lock.held(tmp_path) as held:  # renews it, as if it were elsewhere
        path = tmp_path / "lock.json"
        fields = json.loads(path.read_text())
        path.write_text(json.dumps(fields | {"machine": "elsewhere", "host": "elsewhere"}))
        with (
            pytest.raises(InputError, match="in use by process .* on elsewhere"),
            lock.held(tmp_path),
        ):
            pass
        held.check()


def test_a_lock_that_cannot_be_read_is_watched(tmp_path, quick):
    (tmp_path / "lock.json").write_text("{")
    with lock.held(tmp_path) as held:
        held.check()


def test_a_run_whose_lock_was_taken_over_stops_and_leaves_the_other_alone(tmp_path):
    with lock.held(tmp_path) as held:
        path = tmp_path / "lock.json"
        fields = json.loads(path.read_text())
        path.write_text(json.dumps(fields | {"token": "another", "pid": 7, "host": "elsewhere"}))
        with pytest.raises(InputError, match="taken over by process 7 on elsewhere"):
            held.check()
    assert path.exists()  # the other's
    path.unlink()
    with lock.held(tmp_path) as held:
        path.unlink()
        with pytest.raises(InputError, match="lock was removed"):
            held.check()


def test_the_lock_of_a_process_that_was_killed_holds_nobody_up(tmp_path):
    program = (
        "import pathlib, time\n"
        "from segjax.runs import lock\n"
        f"with lock.held(pathlib.Path({str(tmp_path)!r})):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=programs.ROOT,
        env=programs.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"process {holder.pid} on"):
        lock.refuse_if_held(tmp_path)
    holder.kill()
    # Not waited for yet: its parent has still to collect it.
    while lock._started(holder.pid):
        pass
    with lock.held(tmp_path) as held:
        held.check()
    holder.wait()
