import itertools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from segjax.data import pipeline, scenes
from segjax.data.spec import VOID
from segjax.errors import InputError
from tests import programs

FILL = (10.0, 20.0, 30.0)


class Numbered:
    """Example i is an image filled with the number i; sizes take turns."""

    def __init__(self, count: int, sizes=((4, 6),)):
        self.count = count
        self.sizes = np.array([sizes[i % len(sizes)] for i in range(count)], np.int32)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        height, width = self.sizes[index]
        label = np.full((height, width), index % 5, np.uint8)
        return np.full((height, width, 3), index, np.uint8), label

    def name(self, index):
        return str(index)


OPTIONS = {
    "canvas": (4, 6),
    "fill": FILL,
    "batch_size": 4,
    "seed": 3,
    "first_step": 0,
    "process": 0,
    "processes": 1,
    "threads": 2,
    "workers": 0,
    "prefetch": 2,
}


def take(count: int, **changes) -> list[dict]:
    source = changes.pop("source", Numbered(10))
    batches = pipeline.train_batches(source, **OPTIONS | changes)
    found = [next(batches) for _ in range(count)]
    batches.close()
    return found


def test_every_epoch_holds_every_example_once_in_another_order():
    batches = take(5, batch_size=2)
    first = np.concatenate([b["index"] for b in batches])
    assert sorted(first) == list(range(10))
    both = np.concatenate([b["index"] for b in take(10, batch_size=2)])
    assert sorted(both[10:]) == list(range(10))
    assert list(both[:10]) != list(both[10:])


def test_positions_count_the_endless_stream():
    positions = np.concatenate([b["position"] for b in take(6)])
    np.testing.assert_array_equal(positions, np.arange(24))


@pytest.mark.parametrize("position", [2**31, 2**32 + 5, 2**33, 2_000_000_000 * 4096])
def test_positions_are_whole_however_long_the_run(position):
    (batch,) = take(1, first_step=position // 4)
    found = batch["position_high"].astype(object) * 2**32 + batch["position"].astype(object)
    assert found.tolist() == list(range(position - position % 4, position - position % 4 + 4))
    assert batch["position"].dtype == batch["position_high"].dtype == np.uint32


@pytest.mark.parametrize("first_step", [1, 3, 8])
def test_the_stream_continues_from_any_step(first_step):
    whole, tail = take(10), take(2, first_step=first_step)
    for a, b in zip(whole[first_step : first_step + 2], tail, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_rows_of_all_processes_are_the_batch_of_one(processes):
    whole = take(3)
    parts = [take(3, process=p, processes=processes) for p in range(processes)]
    for step in range(3):
        for key in whole[step]:
            joined = np.concatenate([part[step][key] for part in parts])
            np.testing.assert_array_equal(joined, whole[step][key], err_msg=key)


def test_threads_do_not_change_the_stream():
    for a, b in zip(take(4, threads=1, prefetch=1), take(4, threads=8, prefetch=4), strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["index"], b["index"])


@pytest.mark.slow
def test_worker_processes_do_not_change_the_stream():
    source = scenes.Scenes(seed=1, count=50, size=(48, 64))
    alone = take(4, source=source, canvas=(48, 64))
    workers = take(4, source=source, canvas=(48, 64), workers=2)
    for a, b in zip(alone, workers, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def children() -> set[int]:
    """Process ids of the grain workers that this process has started."""
    return {child.pid for child in multiprocessing.active_children()}


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet collected does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: set[int], seconds: float = 20) -> bool:
    """Whether these processes end within some time."""
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(map(alive, pids))


@pytest.mark.slow
def test_closing_the_stream_ends_its_workers():
    options = OPTIONS | {"workers": 2, "canvas": (48, 64)}
    batches = pipeline.train_batches(scenes.Scenes(seed=1, count=50, size=(48, 64)), **options)
    next(batches)
    assert len(workers := children()) == 2
    batches.close()
    assert gone(workers)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_line():
    options = OPTIONS | {"workers": 1, "canvas": (48, 64)}
    batches = pipeline.train_batches(scenes.Scenes(seed=1, count=50, size=(48, 64)), **options)
    next(batches)
    (worker,) = children()
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(InputError, match="A worker process .* was ended from outside"):
        list(itertools.islice(batches, 20))
    batches.close()


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_no_worker_outlives_a_process_that_is_killed(tmp_path):
    program = tmp_path / "reads.py"
    program.write_text(
        "import multiprocessing, time\n"
        "from absl import flags\n"
        "from segjax.data import pipeline, scenes\n"
        "if __name__ == '__main__':\n"
        "    flags.FLAGS.mark_as_parsed()\n"
        "    source = scenes.Scenes(seed=1, count=50, size=(48, 64))\n"
        f"    options = {OPTIONS | {'workers': 2, 'canvas': (48, 64)}}\n"
        "    batches = pipeline.train_batches(source, **options)\n"
        "    next(batches)\n"
        "    print(*(c.pid for c in multiprocessing.active_children()), flush=True)\n"
        "    time.sleep(600)\n"
    )
    reader = subprocess.Popen(
        [sys.executable, program],
        cwd=programs.ROOT,
        env=programs.environment(PYTHONPATH=str(programs.ROOT)),
        stdout=subprocess.PIPE,
        text=True,
    )
    workers = {int(pid) for pid in reader.stdout.readline().split()}
    assert len(workers) == 2
    assert all(map(alive, workers))
    reader.kill()
    reader.wait()
    try:
        assert gone(workers)
    finally:
        for pid in filter(alive, workers):
            os.kill(pid, signal.SIGKILL)


def test_a_small_image_is_placed_top_left_on_mean_colour_and_void():
    (batch,) = take(1, source=Numbered(4, sizes=((2, 3),)))
    row = int(np.flatnonzero(batch["index"] == 2)[0])
    assert (batch["image"][row, :2, :3] == 2).all()
    assert (batch["image"][row, 2:] == (10, 20, 30)).all()
    assert (batch["label"][row, :, 3:] == VOID).all()
    np.testing.assert_array_equal(batch["size"][row], (2, 3))


def test_an_image_larger_than_the_canvas_is_an_error():
    with pytest.raises(InputError, match="5 x 6 does not fit the canvas 4 x 6"):
        take(1, source=Numbered(4, sizes=((5, 6),)))


def test_a_batch_that_does_not_divide_over_processes_is_an_error():
    with pytest.raises(InputError, match="batch_size 4 does not divide over 3 processes"):
        take(1, processes=3)


def test_an_evaluation_sees_every_example_once_whatever_the_sizes_and_batch():
    source = Numbered(11, sizes=((4, 6), (3, 5), (4, 6)))
    for batch_size in (2, 4, 6):
        for bucket in (1, 4):
            plan = pipeline.eval_plan(source.sizes, batch_size=batch_size, bucket=bucket, limit=0)
            seen = []
            for processes in (1, 2):
                for process in range(processes):
                    for batch in pipeline.eval_batches(
                        source,
                        plan,
                        fill=FILL,
                        process=process,
                        processes=processes,
                        threads=2,
                        prefetch=2,
                    ):
                        seen += batch["index"][batch["weight"] > 0].tolist()
                        empty = batch["label"][batch["weight"] == 0]
                        assert (empty == VOID).all()
            assert sorted(seen) == sorted(2 * list(range(11)))


def test_the_canvas_is_a_function_of_the_size_alone():
    assert pipeline.canvas_of((360, 480), 1) == (360, 480)
    assert pipeline.canvas_of((360, 480), 64) == (384, 512)
    assert pipeline.canvas_of((64, 65), 64) == (64, 128)


def test_few_sizes_are_exact_and_many_share_buckets():
    few = np.array([(360, 480)] * 50 + [(480, 360)])
    many = np.stack([np.arange(100, 200), np.arange(100, 200)], axis=1)
    assert pipeline.resolve_bucket(0, few) == 1
    assert pipeline.resolve_bucket(0, many) == pipeline.BUCKET
    assert pipeline.resolve_bucket(16, few) == 16


def test_a_limit_spreads_over_the_split():
    sizes = np.array([(4, 6)] * 100)
    plan = pipeline.eval_plan(sizes, batch_size=4, bucket=1, limit=5)
    chosen = np.concatenate([rows for _, rows in plan])
    assert chosen[chosen >= 0].tolist() == [0, 25, 50, 74, 99]
