"""Runs of the training loop: what they leave, how they stop and go on."""

import contextlib
import functools
import json
import logging
import os
import signal

import jax
import numpy as np
import pytest

from segjax import sharding
from segjax.data import catalog, pipeline
from segjax.data.png import BadFileError
from segjax.errors import InputError
from segjax.evaluation import labeller
from segjax.runs import checkpoint, event_log
from segjax.training import acceptance, assembly, inputs, loop, monitor, steps
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


RATES = ("images_per_s", "step_ms", "data_wait", "peak_gib")


def without_times(scalars: dict) -> dict:
    """Scalars of an event but its time and rates."""
    return {k: v for k, v in scalars.items() if k != "time" and not k.endswith(RATES)}


def assert_same_run(workdir, whole) -> None:
    """Everything that two runs leave is the same but times and rates."""
    tiny.assert_same_bits(programs.final(workdir), programs.final(whole))
    tiny.assert_same_bits(programs.final(workdir, "best"), programs.final(whole, "best"))
    events = [[without_times(e) for e in event_log.read(run)] for run in (workdir, whole)]
    assert events[0] == events[1]
    steps = [checkpoint.steps_in(run / "checkpoints") for run in (workdir, whole)]
    assert set(steps[0]) >= {3, 6}
    for step in (3, 6):
        stored = [
            json.loads((run / "checkpoints" / str(step) / "metrics" / "metrics").read_text())
            for run in (workdir, whole)
        ]
        assert without_times(stored[0]) == without_times(stored[1])
    for name in ("eval-val.json", "eval-val-ema.json"):
        assert (workdir / name).read_text() == (whole / name).read_text()
    assert (workdir / "pictures" / "eval-0000003.png").exists()
    assert not (workdir / "lock.json").exists()


class Killed(BaseException):
    """Stands for a kill -9 where another process would take too long."""


MOMENTS = {
    "before the first evaluation": (monitor.Monitor, "evaluate", 3),
    "between the scores and the files": (monitor.Monitor, "_show", 3),
    "between the files and the checkpoint's scores": (checkpoint.Checkpoints, "record", 3),
    "before the last evaluation": (monitor.Monitor, "evaluate", 6),
    "before the last files": (monitor.Monitor, "_show", 6),
}


QUICK = ("before the first evaluation", "before the last files")


@pytest.mark.parametrize(
    "moment",
    [
        *QUICK,
        *(pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS if m not in QUICK),
    ],
)
def test_a_run_ended_around_an_evaluation_has_the_same_end(whole, tmp_path, monkeypatch, moment):
    place, name, last = MOMENTS[moment]
    original = getattr(place, name)

    def killed(self, *arguments, **options):
        if last in arguments:
            raise Killed
        return original(self, *arguments, **options)

    monkeypatch.setattr(place, name, killed)
    with pytest.raises(Killed):
        programs.train_plainly(programs.config(), tmp_path)
    monkeypatch.undo()
    assert max(checkpoint.steps_in(tmp_path / "checkpoints")) == last  # saved before
    programs.train_plainly(programs.config(), tmp_path)
    assert_same_run(tmp_path, whole)


def test_an_order_to_stop_breaks_an_evaluation_off(whole, tmp_path, monkeypatch):
    batches = []
    settled = labeller.Labeller.batches

    def counted(self, *arguments):
        for batch in settled(self, *arguments):
            batches.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(labeller.Labeller, "batches", counted)
    config = programs.config(eval__batch_size=8, eval__limit=24)
    programs.train_plainly(config, tmp_path)
    monkeypatch.undo()
    assert len(batches) == 1  # of three
    assert checkpoint.steps_in(tmp_path / "checkpoints") == [2, 3]
    assert not (tmp_path / "eval-val.json").exists()
    assert not any("eval/miou" in event for event in event_log.read(tmp_path))


def test_a_run_that_could_not_save_when_asked_to_stop_says_so(tmp_path, monkeypatch):
    """It ended with status 0, as one whose worker was ended by the same Ctrl-C does."""

    def full(*_, **__):
        raise InputError("the disk is full")

    stop_at(monkeypatch, 3, signal.SIGTERM)
    monkeypatch.setattr(checkpoint.Checkpoints, "save", full)
    with programs.heard(), pytest.raises(InputError, match="the disk is full"):
        programs.train_plainly(programs.config(every_steps__checkpoint=100), tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_lost_terminal_save_too(tmp_path, monkeypatch, number):
    stop_at(monkeypatch, 1, number)
    with programs.heard(), pytest.raises((KeyboardInterrupt, SystemExit)) as ended:
        programs.train_plainly(programs.config(), tmp_path)
    assert programs.final(tmp_path)["step"] in (1, 2)
    if number == signal.SIGHUP:
        assert ended.value.code == 129


def test_an_order_to_stop_before_the_first_step_leaves_a_folder_that_starts_again(
    tmp_path, monkeypatch
):
    compiled = inputs.compiled

    def asked(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return compiled(*arguments)

    monkeypatch.setattr(inputs, "compiled", asked)
    programs.train_plainly(programs.config(), tmp_path)
    monkeypatch.undo()
    assert checkpoint.steps_in(tmp_path / "checkpoints") == []
    assert not (tmp_path / "lock.json").exists()
    programs.train_plainly(programs.config(), tmp_path)
    assert programs.final(tmp_path)["step"] == 6


def test_a_file_that_vanishes_loses_no_step(whole, tmp_path, monkeypatch):
    example = pipeline._example

    def vanished(*arguments, position):
        if position == 8 * 4 + 3:  # of step 5
            raise BadFileError("17.png: No such file or directory.")
        return example(*arguments, position=position)

    monkeypatch.setattr(pipeline, "_example", vanished)
    with pytest.raises(InputError, match="17.png"):
        programs.train_plainly(programs.config(every_steps__checkpoint=100), tmp_path)
    monkeypatch.undo()
    assert checkpoint.steps_in(tmp_path / "checkpoints") == [3, 4]
    programs.train_plainly(programs.config(every_steps__checkpoint=100), tmp_path)
    assert_same_run(tmp_path, whole)


def test_steps_that_could_not_be_logged_are_taken_again(whole, tmp_path, monkeypatch):
    write = event_log.EventLog.write

    def full(self, step, scalars):
        if step == 5:
            with event_log._refusals(self._path):
                self.broken = True
                raise OSError(28, "No space left on device")
        write(self, step, scalars)

    monkeypatch.setattr(event_log.EventLog, "write", full)
    with pytest.raises(InputError, match=r"metrics.jsonl: No space left"):
        programs.train_plainly(programs.config(), tmp_path)
    monkeypatch.undo()
    assert max(checkpoint.steps_in(tmp_path / "checkpoints")) == 4
    programs.train_plainly(programs.config(), tmp_path)
    assert_same_run(tmp_path, whole)


def test_a_run_that_stopped_early_stays_so_until_its_patience_grows(tmp_path, monkeypatch, caplog):
    scores = {1: 0.1, 2: 0.5, 3: 0.4, 4: 0.3, 5: 0.2, 6: 0.1}
    write = monitor.Monitor._write

    def scored(self, step, scalars):
        known = {"eval/miou": scores[step]} if "eval/miou" in scalars else {}
        write(self, step, scalars | known)

    monkeypatch.setattr(monitor.Monitor, "_write", scored)

    def ends_at(patience: int) -> int:
        changes = {"every_steps__eval": 1, "ema_decay": 0.0, "stop__patience": patience}
        programs.train_plainly(programs.config(**changes), tmp_path)
        return max(checkpoint.steps_in(tmp_path / "checkpoints"))

    monkeypatch.setattr(checkpoint, "_without_warnings", contextlib.nullcontext)
    caplog.set_level(logging.INFO, logger="absl")
    assert ends_at(2) == 4
    assert "The run has stopped early at step 4: eval/miou has not improved for 2" in caplog.text
    caplog.clear()
    assert ends_at(2) == 4
    assert "Nothing to do: stopped early at step 4" in caplog.text
    assert "raise config.stop.patience to go on" in caplog.text
    assert ends_at(3) == 5
    assert ends_at(0) == 6


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
