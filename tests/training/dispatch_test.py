"""Several steps in one dispatch."""

import re

import jax
import numpy as np
import pytest
from absl import logging

from segjax import sharding
from segjax.errors import InputError
from segjax.runs import event_log
from segjax.training import assembly, dispatch
from tests import programs, tiny


@pytest.mark.parametrize(
    ("most", "log", "evaluate", "save", "lengths"),
    [
        (1, 4, 6, 5, [1] * 13),
        (4, 4, 100, 100, [4, 4, 4, 1]),
        (3, 4, 100, 100, [3, 1, 3, 1, 3, 1, 1]),
        (100, 4, 6, 5, [4, 1, 1, 2, 2, 2, 1]),
        (100, 100, 100, 100, [13]),
        (5, 1, 100, 100, [1] * 13),
    ],
)
def test_no_dispatch_crosses_a_step_that_is_logged_evaluated_or_saved(
    most, log, evaluate, save, lengths
):
    config = tiny.short_config(
        steps_per_dispatch=most,
        total_steps=13,
        every_steps__log=log,
        every_steps__eval=evaluate,
        every_steps__checkpoint=save,
    )
    found, step = [], 1
    while step <= config.total_steps:
        found.append(dispatch.length(config, step))
        step += found[-1]
    assert found == lengths


def training_of(most: int, devices: int = 4, **changes) -> assembly.Training:
    made = tiny.short_config(**tiny.NOISY, steps_per_dispatch=most, ema_decay=0.5, **changes)
    return tiny.assemble(made, devices)


def taken(training: assembly.Training, batches: list[dict], *counts: int):
    """(state, scalars of every step) by dispatches of so many steps; by none, single programs."""
    ts, found, most = tiny.awake_state(training), [], training.config.steps_per_dispatch
    program = training.program_of_several if counts else training.step
    for count in counts or [1] * len(batches):
        now, batches = batches[:count], batches[count:]
        first = len(found) + 1
        ts, scalars = dispatch.take(program, training.mesh, ts, now, first, most if counts else 1)
        found += dispatch.by_step(scalars, count)
    return jax.device_get(ts), found


@pytest.mark.parametrize("space", [1, 2])
def test_steps_together_are_bit_for_bit_those_one_by_one(space):
    batches = [tiny.batch(seed) for seed in range(4)]
    training = training_of(4, mesh__space=space)
    ts, found = taken(training, batches, 1, 1, 1, 1)
    for counts in ((4,), (3, 1), (2, 2)):
        tiny.assert_same_bits(taken(training, batches, *counts), (ts, found))
    tiny.assert_close(found, taken(training, batches)[1])


def test_the_most_steps_of_a_dispatch_change_no_bit():
    batches = [tiny.batch(seed) for seed in range(2)]
    few, many = (taken(training_of(most), batches, 2) for most in (2, 8))
    tiny.assert_same_bits(few, many)


def broken(seed: int) -> dict[str, np.ndarray]:
    """A batch whose loss is not finite: no colour of it is a number."""
    return tiny.batch(seed) | {"image": np.full((8, *tiny.SIZE, 3), 255, np.uint8)}


class Poisoned:
    """An augmentation that makes white images nan."""

    def __call__(self, key, image, label, size, fill):
        image = image.astype(np.float32)
        return jax.numpy.where(jax.numpy.all(image == 255), np.nan, image), label


def test_steps_that_are_not_finite_end_a_dispatch_as_they_end_a_run():
    training = training_of(6, augment__name="tests.training.dispatch_test:Poisoned")
    patience = training.config.stop.skipped
    bad = [broken(seed) for seed in range(patience)]
    batches = [tiny.batch(0), *bad, *(tiny.batch(seed) for seed in range(5 - patience))]
    ts, found = taken(training, batches, len(batches))
    one, expected = taken(training, batches[: 1 + patience], *[1] * (1 + patience))
    tiny.assert_same_bits(ts, one)  # what comes after was not taken
    tiny.assert_same_bits(found[: 1 + patience], expected)
    assert [int(s["skipped"]) for s in found[: 1 + patience]] == [0, *range(1, patience + 1)]


def test_a_run_that_had_skipped_its_patience_takes_steps_again():
    training = training_of(4)
    ts = tiny.awake_state(training)
    skipped = jax.device_put(np.int32(3), sharding.replicated(training.mesh))
    batches = [tiny.batch(seed) for seed in range(2)]
    ts, scalars = dispatch.take(
        training.program_of_several, training.mesh, ts.replace(skipped=skipped), batches, 1, 4
    )
    assert int(ts.step) == 2
    assert np.all(jax.device_get(scalars["skipped"]) == 0)


def test_a_dispatch_that_comes_after_the_end_takes_no_step():
    training = training_of(2)
    batches = [tiny.batch(seed) for seed in range(2)]
    before = jax.device_get(tiny.awake_state(training))
    ts, _ = dispatch.take(
        training.program_of_several, training.mesh, tiny.awake_state(training), batches, 4, 2
    )
    tiny.assert_same_bits(ts, before)


def losses(workdir) -> dict[int, float]:
    return {e["step"]: e["train/loss"] for e in event_log.read(workdir) if "train/loss" in e}


@pytest.fixture
def heard():
    """Lines of the log: a save sets the verbosity of absl, which would silence them, back."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.INFO)
    yield
    logging.set_verbosity(before)


def test_a_run_of_dispatches_is_the_run_of_single_steps(tmp_path, caplog, heard):
    """In dispatches of up to four steps, and of single ones, as all are logged."""
    changes = {"every_steps__checkpoint": 5, "total_steps": 8}
    runs = {"four": (4, 3), "single": (4, 1), "plain": (1, 3)}
    for name, (most, log) in runs.items():
        made = programs.config(steps_per_dispatch=most, every_steps__log=log, **changes)
        programs.train_plainly(made, tmp_path / name)
    final = {name: programs.final(tmp_path / name) for name in runs}
    tiny.assert_same_bits(final["single"], final["four"])
    for step, loss in losses(tmp_path / "four").items():
        assert losses(tmp_path / "plain")[step] == pytest.approx(loss, rel=1e-5)
    assert sorted(losses(tmp_path / "four")) == [3, 6, 8]
    assert losses(tmp_path / "single") | losses(tmp_path / "four") == losses(tmp_path / "single")
    saved = re.findall(r"Step (\d+) goes to disk, which held the training for \d+ ms", caplog.text)
    assert [int(step) for step in saved] == len(runs) * [3, 5, 6, 8]


def test_a_batch_goes_to_the_devices_before_the_step_before_is_waited_for(tmp_path, monkeypatch):
    told, put, read = [], sharding.put_batch, dispatch.by_step

    def told_put(mesh, rows, **options):
        told.append("put")
        return put(mesh, rows, **options)

    def told_read(*arguments):
        told.append("read")
        return read(*arguments)

    made = programs.config(total_steps=3, every_steps__checkpoint=3)
    monkeypatch.setattr(dispatch, "by_step", told_read)
    monkeypatch.setattr(dispatch.sharding, "put_batch", told_put)
    programs.train_plainly(made, tmp_path)
    # Before the steps comes a batch that the evaluation is compiled for, after them its own.
    assert told[1:7] == ["put", "put", "read", "put", "read", "read"]


def test_the_batch_of_every_step_that_is_not_finite_is_saved(tmp_path, monkeypatch):
    from segjax.data import pipeline

    batches = pipeline.train_batches

    def poisoned(*args, **kwargs):
        stream = batches(*args, **kwargs)
        for number, batch in enumerate(iter(lambda: next(stream), None), 1):
            white = np.full_like(batch["image"], 255)
            yield batch | {"image": white} if number in (2, 4, 5, 6) else batch

    monkeypatch.setattr(pipeline, "train_batches", poisoned)
    made = programs.config(
        steps_per_dispatch=8,
        every_steps__log=10,
        every_steps__eval=10,
        every_steps__checkpoint=10,
        total_steps=10,
        augment__name="tests.training.dispatch_test:Poisoned",
    )
    with pytest.raises(InputError, match="not finite for 3 steps in a row, up to step 6"):
        programs.train_plainly(made, tmp_path)
    assert sorted(path.name for path in (tmp_path / "nonfinite").iterdir()) == [
        f"step-{step:07d}.npz" for step in (2, 4, 5, 6)
    ]
    assert programs.final(tmp_path)["step"] == 6
