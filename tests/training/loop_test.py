"""Runs of the training loop: what they leave, how they stop and go on."""

import functools
import json
import os
import signal

import jax
import numpy as np
import pytest

from segjax import sharding
from segjax.data import catalog, pipeline
from segjax.errors import InputError
from segjax.runs import checkpoint, event_log
from segjax.training import acceptance, assembly, loop, monitor, steps
from tests import programs, tiny

TRACES = []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of six steps, with averaged weights."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    original = steps.train_step

    @functools.wraps(original)
    def counted(*args, **kwargs):
        TRACES.append(1)
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "train_step", counted)
        loop.run(programs.config(), workdir)
    return workdir


def test_the_training_step_is_traced_once(whole):
    assert len(TRACES) == 1


def test_a_run_leaves_all_that_a_reader_needs(whole):
    names = {str(path.relative_to(whole)) for path in whole.rglob("*")}
    assert {
        "config.json",
        "metrics.jsonl",
        "eval-val.json",
        "eval-val.npz",
        "checkpoints/6",
        "pictures/eval-0000003.png",
        "pictures/eval-0000006.png",
        "pictures/eval-iou.png",
        "pictures/curves.png",
    } <= names
    assert any(name.startswith("tensorboard/") for name in names)
    stored = json.loads((whole / "eval-val.json").read_text())
    assert stored["step"] == 6
    assert stored["examples"] == 8
    counts = np.load(whole / "eval-val.npz")["confusion"]
    assert counts.dtype == np.int64
    right = counts.diagonal() / np.maximum(counts.sum(0) + counts.sum(1) - counts.diagonal(), 1)
    present = counts.sum(0) + counts.sum(1) > 0
    assert stored["scores"]["miou"] == pytest.approx(right[present].mean())


def test_every_log_line_has_rates_and_the_wait_for_data(whole):
    events = event_log.read(whole)
    for event in (event for event in events if "train/loss" in event):
        assert {"train/lr", "train/images_per_s", "train/step_ms", "train/data_wait"} < set(event)
        assert 0 <= event["train/data_wait"] <= 1
    assert [e["step"] for e in events if "train/loss" in e] == [1, 2, 3, 4, 5, 6]
    assert [e["step"] for e in events if "eval/miou" in e] == [3, 6]


def stop_at(monkeypatch, step: int, number: signal.Signals) -> None:
    """Sends this process the signal when that step has been logged."""
    log = monitor.Monitor.step

    def logged(self, done, scalars):
        log(self, done, scalars)
        if done == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(monitor.Monitor, "step", logged)


def test_a_run_asked_to_stop_saves_and_goes_on_bit_for_bit(whole, tmp_path, monkeypatch):
    stop_at(monkeypatch, 3, signal.SIGTERM)
    programs.train_plainly(programs.config(), tmp_path)
    monkeypatch.undo()
    saved = max(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert saved < 6
    programs.train_plainly(programs.config(), tmp_path)
    tiny.assert_same_bits(programs.final(tmp_path), programs.final(whole))
    steps_logged = [e["step"] for e in event_log.read(tmp_path) if "train/loss" in e]
    assert steps_logged == [1, 2, 3, 4, 5, 6]


def test_other_data_in_the_same_workdir_is_refused(whole, monkeypatch):
    other = functools.partial(catalog.load, seed=5)
    monkeypatch.setattr(acceptance.catalog, "load", other)
    with pytest.raises(InputError, match="trained on other data"):
        programs.train_plainly(programs.config(total_steps=7), whole)


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """The error of a run whose weights hold a nan."""
    start = assembly.Training.initial_state

    def poisoned(self):
        ts = start(self)
        kernel = ts.params["backbone"]["stem"]["kernel"]
        ts.params["backbone"]["stem"]["kernel"] = kernel.at[0, 0, 0, 0].set(np.nan)
        return ts

    monkeypatch.setattr(assembly.Training, "initial_state", poisoned)
    monkeypatch.setattr("sys.argv", ["segjax.main", "--config=configs/fcn8s.py:smoke"])
    with pytest.raises(InputError, match="3 steps in a row") as told:
        programs.train_plainly(programs.config(), tmp_path)
    return str(told.value)


def test_a_loss_that_stays_non_finite_ends_the_run_with_its_replay(tmp_path, broken):
    path = broken.rpartition("--replay=")[2]
    assert f"python -m segjax.main --config=configs/fcn8s.py:smoke --replay={path}" in broken
    batch = np.load(path)
    assert batch["position"].tolist() == list(range(16, 24))
    assert int(batch["step"]) == 3
    assert len(list((tmp_path / "nonfinite").iterdir())) == 3
    kept = programs.final(tmp_path)
    assert np.isnan(kept["params/backbone/stem/kernel"]).sum() == 1  # the steps changed nothing


@pytest.mark.slow
def test_a_replay_names_the_operation_that_broke(tmp_path, broken):
    with pytest.raises(FloatingPointError, match="nan"):
        programs.train_plainly(
            programs.config(), tmp_path, replay=broken.rpartition("--replay=")[2]
        )


def test_a_run_stops_when_its_scalar_no_longer_improves(tmp_path, monkeypatch):
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.9, 0.9])

    def fake(self, ts, step):
        score = next(scores)
        self._last["eval/miou"] = score
        self._watched.append(score)
        return {"eval/miou": score}

    monkeypatch.setattr(monitor.Monitor, "evaluate", fake)
    programs.train_plainly(programs.config(every_steps__eval=1, stop__patience=2), tmp_path)
    assert max(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == 4


def test_averaged_weights_are_evaluated_beside_the_raw_ones(whole):
    events = event_log.read(whole)
    assert [e["step"] for e in events if "eval_ema/miou" in e] == [3, 6]
    raw, ema = (json.loads((whole / f"eval-val{x}.json").read_text()) for x in ("", "-ema"))
    assert (raw["weights"], ema["weights"]) == ("raw", "ema")
    assert raw["scores"]["loss"] != ema["scores"]["loss"]


@pytest.mark.parametrize("devices", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_stopped_on_eight_devices_goes_on_with_fewer(tmp_path, devices):
    """Ten steps: five on eight devices, five on fewer, against ten on eight.

    Without batch norm, which magnifies rounding each step.
    """
    config = programs.config(total_steps=10, model__backbone__batch_norm=False)
    dataset = catalog.load(**config.data)
    options = {
        "canvas": (48, 64),
        "fill": config.preprocess.mean,
        "batch_size": 8,
        "seed": 0,
        "process": 0,
        "processes": 1,
        "threads": 1,
        "workers": 0,
        "prefetch": 1,
    }

    def go_on(training, ts, count):
        batches = pipeline.train_batches(
            dataset.splits["train"], first_step=int(ts.step), **options
        )
        positions = []
        for _ in range(count):
            batch = next(batches)
            positions += batch["position"].tolist()
            ts, _ = training.step(ts, sharding.put_batch(training.mesh, batch))
        return ts, positions

    eight = assembly.assemble(config, dataset.spec, None, jax.devices())
    ts, seen = go_on(eight, eight.initial_state(), 5)
    checkpoints = checkpoint.Checkpoints(tmp_path / "checkpoints", **config.best)
    checkpoints.save(ts, 5, meta={})
    uninterrupted, rest = go_on(eight, ts, 5)
    few = assembly.assemble(config, dataset.spec, None, jax.devices()[:devices])
    ts, _ = checkpoints.restore(few.state_shapes())
    checkpoints.close()
    ts, again = go_on(few, ts, 5)
    assert seen + again == list(range(80))
    assert again == rest
    tiny.assert_close(ts, uninterrupted)
