"""The batches of a training, and the programs that take them."""

import itertools
import logging
import re

import jax
import numpy as np
import pytest

from segjax import sharding
from segjax.data import class_weights, pipeline
from segjax.training import inputs
from tests import programs, tiny
from tests.evaluation import made


@pytest.fixture(scope="module")
def scene():
    return made.on_scenes(programs.config(batch_size=4), devices=2)


def test_batches_go_on_from_any_step_with_the_same_examples(scene):
    training, split = scene.training, scene.split
    whole = list(itertools.islice(inputs.train_batches(training, split, first_step=0), 4))
    later = list(itertools.islice(inputs.train_batches(training, split, first_step=2), 2))
    for a, b in zip(whole[2:], later, strict=True):
        tiny.assert_same_bits(a, b)
    positions = np.concatenate([batch["position"] for batch in whole])
    assert positions.tolist() == list(range(16))
    assert whole[0]["image"].shape == (4, 48, 64, 3)


def test_an_epoch_holds_every_example_once(scene):
    assert inputs.batches_of_an_epoch(scene.training, scene.split) == 25  # of 100 scenes

    class Split:
        source = range(17)

    assert inputs.batches_of_an_epoch(scene.training, Split) == 5


def test_class_weights_come_from_the_counts_of_the_split(scene):
    assert inputs.weights_of_classes("none", scene.split) is None
    found = inputs.weights_of_classes("median_frequency", scene.split)
    expected = class_weights.by_name("median_frequency", scene.split.scan)
    np.testing.assert_allclose(found, expected)
    assert all(isinstance(weight, float) for weight in found)


def test_both_steps_are_compiled_before_the_first_is_taken(scene, caplog):
    training, evaluator = scene.training, scene.evaluator()
    with caplog.at_level(logging.INFO, logger="absl"):
        ts = tiny.awake_state(training)
        lowered = inputs.traced(training, scene.split).lower()
        step = inputs.compiled(training, lowered, ts)
        evaluator.compile(scene.network)
    assert f"{tiny.count(ts.params)} parameters; 2 images per device and step" in caplog.text
    assert "MiB temporary" in caplog.text
    mesh = "2 x cpu in 1 processes, a mesh of 2 x 1 (data x space); 4 images a process and step"
    assert mesh in caplog.text
    assert re.search(r"; \d+ all-reduce of [\d.]+ kB together", caplog.text)
    (jitted,) = evaluator.labeller._looks.values()
    assert jitted._cache_size() == 1
    evaluator(scene.network)
    assert jitted._cache_size() == 1  # evaluation begins with what is there
    rows = next(inputs.train_batches(training, scene.split, first_step=0))
    after, scalars = step(ts, sharding.put_batch(training.mesh, rows))
    assert int(after.step) == 1
    assert np.isfinite(jax.device_get(scalars["loss"]))


def test_a_batch_of_nothing_is_shaped_like_one_of_the_run(scene):
    batch = next(inputs.train_batches(scene.training, scene.split, first_step=0))
    rows = pipeline.empty_batch(scene.split.canvas, scene.training.config.preprocess.mean, 4)
    assert {k: (v.shape, v.dtype) for k, v in rows.items()} == {
        k: (v.shape, v.dtype) for k, v in batch.items()
    }
