"""A fully connected CRF behind the network, in evaluation and prediction."""

import functools
import json

import jax
import numpy as np
import pytest

from segjax import crf as crfs
from segjax import predict, sharding
from segjax.data import catalog
from segjax.errors import InputError
from segjax.evaluation import evaluator as evaluation
from segjax.evaluation import report, steps
from segjax.pictures import label_maps
from segjax.training import assembly
from tests import programs, tiny

CRF = "deeplab_v1, w1=6.0, theta_alpha=9.0, theta_beta=12.0, iterations=4"


def parts_on(devices: int, **changes):
    """Parts and weights on scenes of 48 x 64, and their validation split."""
    made = tiny.short_config(eval__limit=8, eval__batch_size=8, **changes)
    dataset = catalog.load(**made.data)
    parts = assembly.assemble(made, dataset.spec, None, jax.devices()[:devices])
    ts = tiny.awake_state(parts)
    return parts, (ts.params, ts.batch_stats), assembly.open_split(dataset, made, "val")


@pytest.fixture(scope="module")
def network():
    return parts_on(1)


def evaluator_of(network, views: str = "", crf: str = CRF, **changes) -> evaluation.Evaluator:
    parts, _, split = network
    how = evaluation.protocol(parts, "val", split.scan.sizes, views, crf) | changes
    return evaluation.Evaluator(parts, split.source, split.scan.sizes, how)


def labelled(network, evaluator) -> dict[int, np.ndarray]:
    """Item of the data set -> prediction."""
    found = {}
    for _, batch, out in evaluator.batches(*network[1]):
        found |= evaluation.cut(batch, out["prediction"])
    return found


@pytest.fixture(scope="module")
def refined(network):
    evaluator = evaluator_of(network)
    return evaluator(*network[1]), labelled(network, evaluator)


def test_before_the_crf_is_the_evaluation_without_it(network, refined):
    plain = evaluator_of(network, crf="none")(*network[1])
    result, _ = refined
    np.testing.assert_array_equal(result.before.confusion, plain.report.confusion)
    assert plain.before is None
    assert plain.maps == {}
    for (*_, prediction), before in zip(plain.panel, result.maps["before"], strict=True):
        np.testing.assert_array_equal(prediction, before)
    assert (result.report.confusion != result.before.confusion).any()


def test_after_it_is_the_crf_on_the_networks_scores(network, refined):
    parts, weights, split = network
    crf = crfs.parse(CRF)
    result, labels = refined
    one = jax.jit(functools.partial(crf, capacity=2 * 48 * 64))
    for index, label in labels.items():
        image = split.source[index][0]
        scores = parts.network(*weights, image[None].astype(np.float32))
        rows, cols = scores.matrices((48, 64))
        logits = np.einsum("Hh,hwk,Ww->HWk", rows, scores.values[0], cols)
        found, overflow = one(image, logits.astype(np.float32))
        assert overflow == 0
        assert (np.argmax(found, -1) == label).mean() > 0.999
    assert result.examples == 8


@pytest.mark.parametrize("views", ["single, tile=(64, 64), stride=1.0", "single, flip=True"])
def test_views_are_refined_when_they_are_fused(network, refined, views):
    plain = evaluator_of(network, views, crf="none")(*network[1])
    evaluator = evaluator_of(network, views)
    result = evaluator(*network[1])
    np.testing.assert_array_equal(result.before.confusion, plain.report.confusion)
    changed = np.mean([a != b for a, b in zip(*map(_maps, (result, plain)), strict=True)])
    assert 0.001 < changed < 0.9
    assert result.images["index"].tolist() == refined[0].images["index"].tolist()


def _maps(result):
    return np.stack([prediction for *_, prediction in result.panel])


def test_several_devices_and_batch_sizes_give_the_same_labels(network, refined):
    parts, _, split = parts_on(8)
    weights = jax.device_put(jax.device_get(network[1]), sharding.replicated(parts.mesh))
    for where, size in (((parts, weights, split), 8), (network, 3)):
        labels = labelled(where, evaluator_of(where, batch_size=size))
        for index, label in labels.items():
            assert (label == refined[1][index]).mean() > 0.999


def test_a_lattice_that_overflows_gets_more_room_and_the_batch_is_done_again(
    network, refined, monkeypatch
):
    asked = []

    class Watched(crfs.Room):
        def capacity(self, size):
            asked.append(super().capacity(size))
            return asked[-1]

    monkeypatch.setattr(crfs, "Room", lambda: Watched(0.01))
    result = evaluator_of(network)(*network[1])
    np.testing.assert_array_equal(result.report.confusion, refined[0].report.confusion)
    assert asked[0] < asked[-1]


def test_room_grows_to_the_least_share_that_is_enough():
    room = crfs.Room(0.5)
    assert room.capacity((10, 20)) == 100
    room.grow((10, 20), 301)
    assert room.capacity((10, 20)) == 400
    room.grow((10, 20), 101)
    assert room.capacity((10, 20)) == 400
    with pytest.raises(InputError, match="theta_alpha or theta_beta is too small for 10 x 20"):
        room.grow((10, 20), np.iinfo(np.int32).max)


def test_what_lies_beyond_an_image_is_no_part_of_it():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 24, 32, 3), np.uint8)
    logits = rng.normal(size=(1, 24, 32, 3)).astype(np.float32)
    label = rng.integers(0, 3, (1, 24, 32), np.uint8)
    crf = functools.partial(crfs.build("deeplab_v1").batch, capacity=6 * 24 * 32)
    found, more = steps.refined(image, logits, label, np.array([[17, 21]]), crf)
    cut = np.s_[:, :17, :21]
    own, more_own = steps.refined(image[cut], logits[cut], label[cut], np.array([[17, 21]]), crf)
    np.testing.assert_allclose(found[cut], own, atol=1e-4)
    np.testing.assert_array_equal(more["before"][cut], more_own["before"])


def test_a_crf_refines_the_mean_of_samples():
    drops = {"name": "tests.tiny:Trunk", "batch_norm": False, "dropout": 0.5}
    network = parts_on(1, model__backbone=drops)
    plain = evaluator_of(network, "bayesian_segnet, samples=2", crf="none")(*network[1])
    result = evaluator_of(network, "bayesian_segnet, samples=2")(*network[1])
    np.testing.assert_array_equal(result.before.confusion, plain.report.confusion)
    assert set(result.maps) == {"uncertainty", "before"}
    for a, b in zip(result.maps["uncertainty"], plain.maps["uncertainty"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)
    label_maps.panel(result.panel, network[0].spec, **result.maps)


def test_labels_chosen_on_another_grid_are_not_refined(network):
    with pytest.raises(InputError, match="protocol argmax 'input' does not go with it"):
        evaluator_of(network, "single, scales=(0.5,), argmax='input'")


def test_the_scores_of_both_are_kept_and_told(network, refined, tmp_path):
    result, _ = refined
    table = report.table(result, network[0].spec)
    assert "before the CRF: miou" in table
    evaluator = evaluator_of(network)
    report.write(
        tmp_path / "eval-val.json", result, evaluator.how, network[0].spec,
        step=1, weights="raw", data="", checkpoint=1, names=evaluator.names(result),
    )  # fmt: skip
    fields = json.loads((tmp_path / "eval-val.json").read_text())
    assert fields["before_crf"]["miou"] == pytest.approx(float(result.before.miou))
    assert fields["protocol"]["crf"] == crfs.parse(CRF).to_json()


def test_predict_draws_what_the_crf_changed(network, tmp_path):
    parts, (params, batch_stats), split = network
    how = evaluation.protocol(parts, "val", split.scan.sizes, "", CRF)

    class Images:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return split.source[0]

        def name(self, index):
            return "one"

    ts = tiny.awake_state(parts)
    predict.write_labels(parts, ts, how, Images(), np.array([[48, 64]]), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "one.png", "one_overlay.png", "one_crf.png"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deeplab_v9", "unknown 'deeplab_v9'; known: deeplab_v1, .* Did you mean"),
        ("deeplab_v1, theta=1", "unknown 'theta'"),
        ("deeplab_v1, w1=-1", "config.eval.crf.w1: -1; it is a number, 0 or more"),
        ("deeplab_v1, 3", "is not a preset with key=value after it"),
    ],
)
def test_a_crf_that_is_not_known_is_refused(network, text, message):
    with pytest.raises(InputError, match=message):
        evaluator_of(network, crf=text)


def test_the_verbs_take_a_crf_and_the_runs_own_is_the_default(tmp_path):
    workdir = tmp_path / "run"
    done = programs.verb(
        "main", "--config=configs/fcn8s.py:smoke", "--config.model.backbone.width=4",
        "--config.model.backbone.fc_width=8", "--config.eval.crf.preset=deeplab_v1",
        f"--workdir={workdir}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stored = json.loads((workdir / "eval-val.json").read_text())
    assert stored["protocol"]["crf"]["name"] == "deeplab_v1"
    for flags, name in (((), "eval-val"), (("--crf=none",), "eval-val-no_crf")):
        done = programs.verb("evaluate", f"--workdir={workdir}", "--step=latest", *flags)
        assert done.returncode == 0, done.stderr
        fields = json.loads((workdir / f"{name}.json").read_text())
        expected = stored["scores"]["miou"] if not flags else stored["before_crf"]["miou"]
        assert fields["scores"]["miou"] == expected
    assert (workdir / "pictures" / "eval-val-before.png").exists()
