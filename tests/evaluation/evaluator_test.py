"""Evaluations of a split: every image once, its details its own."""

import jax
import numpy as np
import pytest

from segjax import network, sharding
from segjax.data import catalog, splits
from segjax.data.spec import VOID
from segjax.evaluation import protocol as protocols
from segjax.evaluation.evaluator import Evaluator
from segjax.metrics import class_boundaries, confusion
from tests import programs, tiny
from tests.evaluation import made

TWICE = "single, scales=(0.75, 1.0), flip=True"
WINDOWS = "single, tile=(40, 48), softmax='before_resize'"


@pytest.fixture(scope="module")
def scene():
    return made.on_scenes(tiny.short_config(eval__limit=6, eval__batch_size=4), devices=2)


@pytest.mark.parametrize("views", ["single", TWICE, WINDOWS, TWICE + ", argmax='input'"])
def test_every_image_counts_once_and_its_details_are_its_own(scene, views):
    seen, source = {}, scene.split.source

    def observe(index, example):
        seen[index] = example

    result = scene.evaluator(views, details=True)(scene.network, observe=observe)
    expected = np.linspace(0, len(source) - 1, 6).round().astype(int)
    assert sorted(result.index) == expected.tolist() == sorted(seen)
    assert result.examples == 6
    total = np.zeros((11, 11), np.int64)
    for row, index in enumerate(result.index):
        image, truth, prediction = seen[index]
        np.testing.assert_array_equal(image, source[int(index)][0])
        np.testing.assert_array_equal(truth, source[int(index)][1])
        own = np.zeros((11, 11), np.int64)
        valid = truth != VOID
        np.add.at(own, (truth[valid], prediction[valid]), 1)
        np.testing.assert_array_equal(confusion.marginals(own), result.marginals[row])
        near, rim = class_boundaries.radii(truth.shape)
        found = jax.jit(class_boundaries.counts, static_argnames=("num_classes", "capacity"))(
            prediction, truth, np.array(truth.shape), class_boundaries.disc(near, int(near)), rim,
            num_classes=11, capacity=int(near),
        )  # fmt: skip
        for key, value in found.items():
            kept = result.images["boundaries"][key][row]
            np.testing.assert_array_equal(kept, value, err_msg=key)
        total += own
    np.testing.assert_array_equal(result.report.confusion, total)
    scalars = result.scalars()
    assert 0 <= scalars["ece"] <= 1
    assert scalars["loss"] > 0
    assert scalars["miou"] == pytest.approx(float(result.report.miou))
    assert len(result.panel) == scene.training.config.eval.pictures


def test_progress_is_told_batch_by_batch_and_panels_may_be_empty():
    scene = made.on_scenes(
        tiny.short_config(eval__limit=6, eval__batch_size=4, eval__pictures=0), devices=2
    )
    evaluator, done = scene.evaluator(), []
    result = evaluator(scene.network, progress=done.append)
    assert done == [1, 2]
    assert result.panel == []
    assert evaluator.names(result) == [scene.split.source.name(int(i)) for i in result.index]


def test_other_weights_are_scored_without_another_program(scene):
    """A network is an argument of the compiled step: new weights are new numbers, no new trace."""
    traces = []
    evaluator = scene.evaluator()
    judge = evaluator.labeller._judge
    metric = judge.metrics[0]
    count = metric.count

    def counted(pixels):
        traces.append(1)
        return count(pixels)

    metric.count = counted
    first = evaluator(scene.network)
    once = len(traces)
    assert once >= 1
    moved = jax.tree.map(lambda leaf: leaf * 0.5, scene.network)
    second = evaluator(moved)
    assert len(traces) == once
    assert first.scalars()["loss"] != second.scalars()["loss"]
    again = evaluator(scene.network)
    assert again.scalars() == first.scalars()
    np.testing.assert_array_equal(again.report.confusion, first.report.confusion)


@pytest.mark.parametrize("views", ["single", "single, scales=(0.5, 1.0)"])
def test_programs_are_counted_once_for_any_number_of_networks(scene, views):
    evaluator = scene.evaluator(views)
    first = evaluator(scene.network)
    second = evaluator(jax.tree.map(lambda leaf: leaf * 0.5, scene.network))
    assert first.programs == second.programs >= 1


def test_an_evaluation_of_samples_keeps_the_uncertainty_of_its_panel():
    backbone = {"name": "tests.tiny:Trunk", "batch_norm": True, "dropout": 0.5}
    config = programs.config(model__backbone=backbone, eval__limit=6, eval__batch_size=4)
    scene = made.on_scenes(config, devices=2)
    evaluator = scene.evaluator("single, samples=2", details=True)
    assert evaluator.protocol.to_json()["views"]["samples"] == 2
    result = evaluator(scene.network)
    assert len(result.maps["uncertainty"]) == len(result.panel) == config.eval.pictures
    for (image, _, _), variance in zip(result.panel, result.maps["uncertainty"], strict=True):
        assert variance.shape == image.shape[:2]
        assert 0 < variance.max() <= 0.25


@pytest.mark.parametrize("views", ["single", "single, flip=True"])
@pytest.mark.parametrize(("space", "devices"), [(1, 3), (2, 1), (2, 6), (4, 8)])
def test_any_number_of_devices_scores_alike(scene, views, space, devices):
    """A batch of 4 on 3 devices or 8; a space of 2 on one device; heights 4 does not divide."""
    config = tiny.short_config(
        eval__limit=6, eval__batch_size=4, data__size=(50, 64), mesh__space=space
    )
    dataset = catalog.load(**config.data)
    split, results = splits.open_split(dataset, "val"), []
    for count in (1, devices):
        mesh = sharding.make_mesh(space, jax.devices()[:count], at_most=True)
        model = network.model_of(config, dataset.spec)
        weights = jax.device_put(jax.device_get(scene.network), sharding.replicated(mesh))
        how = protocols.resolve(config, protocols.EXACT, split="val", views_text=views)
        evaluator = Evaluator(config, model, mesh, split, how, details=True)
        evaluator.compile(weights)
        results.append(evaluator(weights))
    one, many = results
    assert many.index.tolist() == one.index.tolist()
    np.testing.assert_array_equal(many.marginals, one.marginals)
    np.testing.assert_array_equal(many.report.confusion, one.report.confusion)
    assert many.scalars()["loss"] == pytest.approx(one.scalars()["loss"], rel=1e-5)
