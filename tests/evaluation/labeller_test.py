"""Labels of batches: with a fully connected CRF behind the network, and with scores kept."""

import functools

import jax
import numpy as np
import pytest

from segjax import crf as crfs
from segjax import sharding
from segjax.evaluation.labeller import Labeller
from segjax.evaluation.result import cut
from segjax.network import Network
from segjax.pictures import label_maps
from tests import tiny
from tests.evaluation import made

CRF = "deeplab_v1, w1=6.0, theta_alpha=9.0, theta_beta=12.0, iterations=4"


def scene_on(devices: int, **changes) -> made.Scene:
    return made.on_scenes(tiny.short_config(eval__limit=8, eval__batch_size=8, **changes), devices)


@pytest.fixture(scope="module")
def scene():
    return scene_on(1)


def labelled(scene, evaluator, network=None) -> dict[int, np.ndarray]:
    """Item of the data set -> prediction."""
    found, labeller = {}, evaluator.labeller
    network = scene.network if network is None else network
    for _, batch, out in labeller.batches(network, scene.split.source, evaluator.plan):
        found |= cut(batch, out["prediction"])
    return found


@pytest.fixture(scope="module")
def refined(scene):
    evaluator = scene.evaluator(crf=CRF)
    return evaluator(scene.network), labelled(scene, evaluator)


def test_before_the_crf_is_the_evaluation_without_it(scene, refined):
    plain = scene.evaluator(crf="none")(scene.network)
    result, _ = refined
    np.testing.assert_array_equal(result.before.confusion, plain.report.confusion)
    assert result.scalars()["miou_before_crf"] == float(plain.report.miou)
    assert plain.before is None
    assert plain.maps == {}
    for (*_, prediction), before in zip(plain.panel, result.maps["before"], strict=True):
        np.testing.assert_array_equal(prediction, before)
    assert (result.report.confusion != result.before.confusion).any()


def test_after_it_is_the_crf_on_the_networks_scores(scene, refined):
    crf = crfs.parse(CRF)
    result, labels = refined
    one = jax.jit(functools.partial(crf, capacity=2 * 48 * 64))
    see = jax.jit(Network.__call__)
    for index, label in labels.items():
        image = scene.split.source[index][0]
        scores = see(scene.network, image[None].astype(np.float32))
        rows, cols = scores.matrices((48, 64))
        logits = np.einsum("Hh,hwk,Ww->HWk", rows, scores.values[0], cols)
        found, overflow = one(image, logits.astype(np.float32))
        assert overflow == 0
        assert (np.argmax(found, -1) == label).mean() > 0.999
    assert result.examples == 8


@pytest.mark.parametrize("views", ["single, tile=(64, 64), stride=1.0", "single, flip=True"])
def test_views_are_refined_when_they_are_fused(scene, refined, views):
    plain = scene.evaluator(views, crf="none")(scene.network)
    result = scene.evaluator(views, crf=CRF)(scene.network)
    np.testing.assert_array_equal(result.before.confusion, plain.report.confusion)
    changed = np.mean([a != b for a, b in zip(*map(_maps, (result, plain)), strict=True)])
    assert 0.001 < changed < 0.9
    assert result.index.tolist() == refined[0].index.tolist()


def _maps(result):
    return np.stack([prediction for *_, prediction in result.panel])


@pytest.mark.slow
def test_several_devices_and_batch_sizes_give_the_same_labels(scene, refined):
    many = scene_on(8)
    weights = jax.device_put(jax.device_get(scene.network), sharding.replicated(many.training.mesh))
    for where, network, size in ((many, weights, 8), (scene, scene.network, 3)):
        labels = labelled(where, where.evaluator(crf=CRF, batch_size=size), network)
        assert labels.keys() == refined[1].keys()
        for index, label in labels.items():
            assert (label == refined[1][index]).mean() > 0.999


def test_a_lattice_that_overflows_grows_and_the_batch_is_done_again(scene, refined, monkeypatch):
    asked = []

    class Watched(crfs.LatticeCapacity):
        def vertices(self, size):
            asked.append(super().vertices(size))
            return asked[-1]

    monkeypatch.setattr(crfs, "LatticeCapacity", lambda: Watched(0.01))
    result = scene.evaluator(crf=CRF)(scene.network)
    np.testing.assert_array_equal(result.report.confusion, refined[0].report.confusion)
    assert asked[0] < asked[-1]


def test_a_crf_refines_the_mean_of_samples():
    drops = {"name": "tests.tiny:Trunk", "batch_norm": False, "dropout": 0.5}
    scene = scene_on(1, model__backbone=drops)
    views = "bayesian_segnet, samples=2"
    plain = scene.evaluator(views, crf="none")(scene.network)
    result = scene.evaluator(views, crf=CRF)(scene.network)
    np.testing.assert_array_equal(result.before.confusion, plain.report.confusion)
    assert set(result.maps) == {"uncertainty", "before"}
    for a, b in zip(result.maps["uncertainty"], plain.maps["uncertainty"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)
    label_maps.panel(result.panel, scene.training.model.spec, **result.maps)


@pytest.mark.parametrize(
    ("views", "crf"),
    [
        ("single", "none"),
        ("single, samples=2", "none"),
        ("single, flip=True", "none"),
        ("single, tile=(40, 48)", "none"),
        ("single", CRF),
        ("single, flip=True", CRF),
    ],
)
def test_scores_are_given_where_they_are_asked_for_and_their_argmax_is_the_label(views, crf):
    drops = {"name": "tests.tiny:Trunk", "batch_norm": False, "dropout": 0.5}
    scene = scene_on(1, model__backbone=drops)
    training, protocol, found = scene.training, scene.protocol(views, crf, limit=3), {}
    for keep in (True, False):
        labeller = Labeller(
            training.model, training.mesh, protocol, metrics=(), blocks=3,
            loader=training.config.loader, keep_scores=keep,
        )  # fmt: skip
        plan = labeller.plan(scene.split.scan.sizes)
        found[keep] = list(labeller.batches(scene.network, scene.split.source, plan))
    for (_, _, kept), (_, _, bare) in zip(found[True], found[False], strict=True):
        assert "scores" not in bare
        assert kept["scores"].dtype == np.float32
        assert kept["scores"].shape == (*kept["prediction"].shape, 11)
        np.testing.assert_array_equal(np.argmax(kept["scores"], -1), kept["prediction"])
        np.testing.assert_array_equal(kept["prediction"], bare["prediction"])
        assert kept["counts"] == {}


@pytest.mark.parametrize("align", ["half_pixel", "corners", "centres"])
@pytest.mark.parametrize("softmax", ["after_resize", "before_resize"])
def test_one_look_and_several_views_of_it_bring_scores_to_the_image_alike(align, softmax):
    """The network sees the image at half its size; the second scale of 1 adds nothing."""
    head = {"name": "conv", "width": 6, "norm": {"name": "none"}, "stage": "stage3"}
    head |= {"align": align, "dropout": 0.0}
    where = made.on_scenes(tiny.short_config(model__head=head, input_scale=0.5, eval__batch_size=2))
    scores = []
    for views in ("single", "single, scales=(1.0, 1.0)"):
        protocol = where.protocol(f"{views}, softmax={softmax!r}")
        labeller = Labeller(
            where.training.model, where.training.mesh, protocol, metrics=(), keep_scores=True,
            blocks=3, loader=where.training.config.loader,
        )  # fmt: skip
        plan = labeller.plan(where.split.scan.sizes[:2])
        ((_, _, out),) = labeller.batches(where.network, where.split.source, plan)
        scores.append(jax.nn.softmax(np.asarray(out["scores"]), axis=-1))
    np.testing.assert_allclose(*scores, atol=1e-5)
