"""Evaluations from a split to the files that are kept of them, and two of them compared."""

import dataclasses
import json
import zipfile

import jax
import numpy as np
import pytest

from segjax.data import catalog, png
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.evaluation import comparison, report
from segjax.evaluation import evaluator as evaluation
from segjax.evaluation.fusion import MultiView
from segjax.evaluation.protocol import Protocol
from segjax.metrics import class_boundaries, confusion
from segjax.runs import run_folder
from segjax.training import assembly
from tests import tiny

TWICE = "single, scales=(0.75, 1.0), flip=True"
WINDOWS = "single, tile=(40, 48), softmax='before_resize'"


@pytest.fixture(scope="module")
def network():
    """Parts, weights and a validation split of scenes of 48 x 64."""
    made = tiny.short_config(eval__limit=6, eval__batch_size=4)
    dataset = catalog.load(**made.data)
    parts = assembly.assemble(made, dataset.spec, None, jax.devices()[:2])
    ts = tiny.awake_state(parts)
    return parts, (ts.params, ts.batch_stats), assembly.open_split(dataset, made, "val")


def evaluated(network, views: str = "", **options):
    """(evaluator, result)."""
    parts, weights, split = network
    how = evaluation.protocol(parts, "val", split.scan.sizes, views)
    evaluator = evaluation.Evaluator(parts, split.source, split.scan.sizes, how, **options)
    return evaluator, evaluator(*weights)


@pytest.mark.parametrize("views", ["single", TWICE, WINDOWS, TWICE + ", argmax='input'"])
def test_every_image_counts_once_and_its_details_are_its_own(network, views):
    seen = {}
    parts, weights, split = network
    how = evaluation.protocol(parts, "val", split.scan.sizes, views)
    evaluator = evaluation.Evaluator(parts, split.source, split.scan.sizes, how, details=True)

    def observe(index, example, marginals):
        seen[index] = example, marginals

    result = evaluator(*weights, observe=observe)
    expected = np.linspace(0, len(split.source) - 1, 6).round().astype(int)
    assert sorted(result.images["index"]) == expected.tolist() == sorted(seen)
    assert result.examples == 6
    total = np.zeros((11, 11), np.int64)
    for row, index in enumerate(result.images["index"]):
        (image, truth, prediction), marginals = seen[index]
        np.testing.assert_array_equal(image, split.source[int(index)][0])
        np.testing.assert_array_equal(truth, split.source[int(index)][1])
        own = np.zeros((11, 11), np.int64)
        valid = truth != VOID
        np.add.at(own, (truth[valid], prediction[valid]), 1)
        np.testing.assert_array_equal(confusion.marginals(own), marginals)
        np.testing.assert_array_equal(marginals, result.images["marginals"][row])
        near, rim = class_boundaries.radii(truth.shape)
        found = jax.jit(class_boundaries.counts, static_argnames=("num_classes", "capacity"))(
            prediction, truth, np.array(truth.shape), class_boundaries.disc(near, int(near)), rim,
            num_classes=11, capacity=int(near),
        )  # fmt: skip
        for key, value in found.items():
            np.testing.assert_array_equal(result.images[key][row], value, err_msg=key)
        total += own
    np.testing.assert_array_equal(result.report.confusion, total)
    assert 0 <= result.ece <= 1
    assert result.loss > 0
    assert len(result.panel) == parts.config.eval.pictures


def test_one_look_by_views_is_the_evaluation_step(network):
    parts, (params, batch_stats), split = network
    evaluator, _ = evaluated(network)
    (_, batch, out), *_ = evaluator.batches(params, batch_stats)
    how = MultiView(
        parts.network, parts.judge, Protocol(), seen=lambda size: size, mean=(0.0, 0.0, 0.0),
        num_classes=11, batch_size=4, devices=jax.devices()[:2],
    )  # fmt: skip
    found = how(how.weights(params, batch_stats), batch)
    assert (found["prediction"] == np.asarray(out["prediction"])).mean() > 0.999
    assert found["loss"] == pytest.approx(float(out["loss"]), rel=1e-5)
    assert found["pixels"] == int(out["pixels"])
    np.testing.assert_allclose(found["calibration"], out["calibration"], atol=3)


def keep(folder, evaluator, result, name: str, **changes):
    """Writes an evaluation into a run folder, as the verb does."""
    parts = evaluator.experiment
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(parts.config.to_json())
    path = report.path_of(folder, "val", views=name)
    fields = {"step": 3, "weights": "raw", "data": "abc", "checkpoint": 12} | changes
    names = evaluator.names(result)
    report.write(path, result, evaluator.how, parts.spec, names=names, **fields)
    return path


@pytest.fixture(scope="module")
def pair(network, tmp_path_factory):
    """Two evaluations as files: one look, and scales with flips; with their label maps."""
    folder, paths = tmp_path_factory.mktemp("pair") / "run", []
    for views, name in (("single", ""), (TWICE, "twice")):
        evaluator, result = evaluated(network, views, details=True)
        path = keep(folder, evaluator, result, name)
        labels = report.new_labels(path, evaluator.experiment.spec)
        for _, batch, out in evaluator.batches(*network[1]):
            for index, example in evaluation.examples(batch, out["prediction"]).items():
                labels.add(evaluator.source.name(index), example[2])
        labels.close()
        paths.append(path)
    return paths


def test_the_file_of_scores_says_how_they_were_made(network, pair):
    fields = json.loads(pair[1].read_text())
    assert fields["protocol"]["views"]["scales"] == [0.75, 1.0]
    assert fields["protocol"]["views"]["flip"] is True
    assert (fields["data"], fields["checkpoint"], fields["step"]) == ("abc", 12, 3)
    assert fields["versions"]["jax"]
    interval = fields["miou_interval"]
    assert interval["low"] <= fields["scores"]["miou"] <= interval["high"]
    assert set(fields["bands"]) == {str(width) for width in class_boundaries.BANDS}
    assert 0 <= fields["boundary_f1"]["mean"] <= 1
    assert 0 <= fields["boundary_iou"]["mean"] <= 1
    with np.load(pair[1].with_suffix(".npz")) as arrays:
        np.testing.assert_array_equal(
            confusion.marginals(arrays["confusion"]), arrays["marginals"].sum(0)
        )
        assert len(arrays["names"]) == 6
    _, result = evaluated(network, TWICE, details=True)
    text = report.table(result, network[0].spec)
    assert "boundary F1" in text
    assert "Boundary IoU" in text
    assert " to " in text


def test_two_evaluations_are_compared_image_by_image(network, pair, tmp_path, capsys):
    comparison.run(*pair, "val", tmp_path / "out")
    fields = json.loads((tmp_path / "out" / "compare.json").read_text())
    a, b = (json.loads(path.read_text()) for path in pair)
    assert fields["iou"]["mIoU"]["difference"] == pytest.approx(
        a["scores"]["miou"] - b["scores"]["miou"]
    )
    for name in network[0].spec.classes:
        if fields["iou"][name]["a"] is not None:
            assert fields["iou"][name]["a"] == pytest.approx(a["iou"][name])
    assert fields["images"] == 6
    maps = [zipfile.ZipFile(*report.labels_of(path)) for path in pair]
    source = network[2].source
    for index in np.linspace(0, len(source) - 1, 6).round().astype(int):
        name, truth = source.name(int(index)), source[int(index)][1]
        one, two = (png.decode_mask(z.read(f"{name}.png"), "") for z in maps)
        share = (one != two)[truth != VOID].mean()
        assert fields["disagreement"][name] == pytest.approx(share)
    shares = list(fields["disagreement"].values())
    assert shares == sorted(shares, reverse=True)
    assert (tmp_path / "out" / "disagreements.png").stat().st_size > 1000
    assert "mIoU" in capsys.readouterr().out


def test_images_are_paired_by_their_names(pair):
    a, b = (comparison.load(path, "val") for path in pair)
    order = [3, 0, 5, 1, 4, 2]
    names = [b.names[i] for i in order]
    mixed = dataclasses.replace(b, names=names, marginals=b.marginals[order], index=b.index[order])
    again = comparison.aligned(a, mixed)
    assert again.names == a.names
    np.testing.assert_array_equal(again.marginals, b.marginals)
    np.testing.assert_array_equal(again.index, b.index)


def test_what_cannot_be_compared_is_said(network, pair, tmp_path):
    evaluator, result = evaluated(network)
    other = keep(tmp_path / "other", evaluator, result, "", data="another")
    with pytest.raises(InputError, match="different data set"):
        comparison.run(pair[0], other, "val", tmp_path)
    bare = keep(tmp_path / "bare", evaluator, result, "")
    with pytest.raises(InputError, match="no label maps"):
        comparison.run(pair[0], bare, "val", tmp_path)
    with pytest.raises(InputError, match="run segjax.evaluate first"):
        comparison.run(pair[0], tmp_path / "bare" / "eval-test.json", "val", tmp_path)
    np.savez(bare.with_suffix(".npz"), confusion=np.zeros((11, 11)))
    with pytest.raises(InputError, match="no scores by image"):
        comparison.run(pair[0], bare, "val", tmp_path)


def test_label_maps_of_an_evaluation_before_are_gone(tmp_path):
    path = tmp_path / "eval-val.json"
    for name in ("eval-val-labels.zip", "eval-val-labels-1.zip", "eval-val-other-labels.zip"):
        (tmp_path / name).write_bytes(b"old")
    labels = report.new_labels(path, tiny.SPEC)
    labels.add("deep/er", np.ones((3, 4), np.uint8))
    labels.close()
    assert [file.name for file in report.labels_of(path)] == ["eval-val-labels.zip"]
    np.testing.assert_array_equal(comparison.LabelMaps(path)["deep/er"], 1)
    with pytest.raises(InputError, match="no label map of other"):
        comparison.LabelMaps(path)["other"]
    assert (tmp_path / "eval-val-other-labels.zip").exists()


def test_the_worst_images_are_kept_and_drawn_worst_first():
    worst = report.Worst(keep=2)
    label = np.zeros((8, 8), np.uint8)
    image = np.zeros((8, 8, 3), np.uint8)
    for index, right in enumerate((30, 10, 64, 50, 20)):
        marginals = np.array([[right, 0], [64, 0], [64, 0]])
        worst.add(index, (image, label, label), marginals)
    worst.add(9, (image, label, label), np.zeros((3, 2), int))  # nothing labelled, no score
    captions = []

    def names(index):
        captions.append(index)
        return str(index)

    assert worst.draw(tiny.SPEC, names) is not None
    assert captions == [1, 4]
    assert report.Worst().draw(tiny.SPEC, str) is None


def test_keys_that_older_run_folders_lack_are_what_was_done_then(tmp_path):
    made = tiny.short_config()
    fields = json.loads(made.to_json())
    for key in assembly._NEWER_KEYS:
        part, name, *_ = key.split(".")
        del fields[part][name]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    read = run_folder.read_config(tmp_path)
    assert read.eval.protocol == "single"
    assert read.loss == made.loss
    assert read.eval.crf == made.eval.crf
    run_folder.check_workdir(tmp_path, made)
    other = tiny.short_config(eval__protocol="fcn")
    with pytest.raises(InputError, match="eval.protocol"):
        run_folder.check_workdir(tmp_path, other)
