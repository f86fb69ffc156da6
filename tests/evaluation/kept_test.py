"""An evaluation with all that is kept of it, and two of them compared."""

import dataclasses
import json
import shutil
import zipfile

import jax
import numpy as np
import pytest

from segjax.data import png
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.evaluation import comparison, kept, kept_labels, report
from segjax.runs import run_folder
from tests import programs, tiny
from tests.evaluation import made

TWICE = "single, scales=(0.75, 1.0), flip=True"


@pytest.fixture(scope="module")
def scene():
    return made.on_scenes(tiny.short_config(eval__limit=6, eval__batch_size=4), devices=2)


@pytest.fixture(scope="module")
def pair(scene, tmp_path_factory):
    """Two evaluations as files: one look, and scales with flips."""
    workdir, paths = tmp_path_factory.mktemp("pair") / "run", []
    run_folder.claim(workdir, scene.training.config)
    for views, name in (("single", ""), (TWICE, "twice")):
        paths.append(report.path_of(workdir, "val", views=name))
        origin = report.Origin(3, "raw", "abc", 12)
        kept.evaluate(scene.evaluator(views, details=True), scene.network, paths[-1], origin)
    return paths


def test_scores_label_maps_and_the_worst_images_lie_beside_each_other(scene, pair):
    workdir = pair[0].parent
    names = {str(file.relative_to(workdir)) for file in workdir.rglob("*.*")}
    assert names == {
        "config.json",
        *(f"eval-val{end}" for end in (".json", ".npz", "-labels.zip")),
        *(f"eval-val-twice{end}" for end in (".json", ".npz", "-labels.zip")),
        "pictures/eval-val-worst.png",
        "pictures/eval-val-twice-worst.png",
    }
    for path in pair:
        fields = json.loads(path.read_text())
        reader = kept_labels.Reader(path, fields["result"])
        with np.load(path.with_suffix(".npz")) as arrays:
            counts = np.zeros((11, 11), np.int64)
            for name, index in zip(arrays["names"], arrays["index"], strict=True):
                truth = scene.split.source[int(index)][1]
                valid = truth != VOID
                np.add.at(counts, (truth[valid], reader[str(name)][valid]), 1)
            np.testing.assert_array_equal(counts, arrays["confusion"])
        assert fields["examples"] == 6


def test_two_evaluations_are_compared_image_by_image(scene, pair, tmp_path, capsys):
    comparison.run(*pair, "val", tmp_path / "out")
    fields = json.loads((tmp_path / "out" / "compare.json").read_text())
    a, b = (json.loads(path.read_text()) for path in pair)
    assert fields["iou"]["mIoU"]["difference"] == pytest.approx(
        a["scores"]["miou"] - b["scores"]["miou"]
    )
    for name in scene.training.model.spec.classes:
        if fields["iou"][name]["a"] is not None:
            assert fields["iou"][name]["a"] == pytest.approx(a["iou"][name])
    assert fields["images"] == 6
    maps = [zipfile.ZipFile(*kept_labels.files_of(path)) for path in pair]
    source = scene.split.source
    for index in np.linspace(0, len(source) - 1, 6).round().astype(int):
        name, truth = source.name(int(index)), source[int(index)][1]
        one, two = (png.decode_mask(z.read(f"{name}.png"), "") for z in maps)
        share = (one != two)[truth != VOID].mean()
        assert fields["disagreement"][name] == pytest.approx(share)
    shares = list(fields["disagreement"].values())
    assert shares == sorted(shares, reverse=True)
    assert (tmp_path / "out" / "disagreements.png").stat().st_size > 1000
    assert "mIoU" in capsys.readouterr().out


def test_what_a_protocol_shows_beside_predictions_is_drawn(tmp_path):
    config = programs.config(eval__limit=2)
    scene = made.on_scenes(config)
    evaluator = scene.evaluator("single, samples=2", details=True)
    path = report.path_of(tmp_path, "val")
    kept.evaluate(evaluator, scene.network, path, report.Origin(1, "raw", "", 1))
    assert (tmp_path / "pictures" / "eval-val-uncertainty.png").stat().st_size > 1000


def test_files_of_two_evaluations_are_not_taken_for_one(scene, tmp_path):
    """A kill between two files, and label maps of weights that have been trained on since."""
    network, paths = jax.tree.map(lambda x: -x, scene.network), []
    other = dataclasses.replace(scene, network=network)
    for name, one in (("a", scene), ("b", other)):
        workdir = tmp_path / name
        run_folder.claim(workdir, scene.training.config)
        paths.append(report.path_of(workdir, "val"))
        origin = report.Origin(3, "raw", "abc", 12)
        kept.evaluate(one.evaluator(details=True), one.network, paths[-1], origin)
    comparison.run(*paths, "val", tmp_path / "out0")
    (labels,) = kept_labels.files_of(paths[0])
    mine = labels.read_bytes()
    shutil.copy(*kept_labels.files_of(paths[1]), labels)
    with pytest.raises(InputError, match="label maps of another evaluation"):
        comparison.run(*paths, "val", tmp_path / "out1")
    labels.write_bytes(mine)
    shutil.copy(paths[1].with_suffix(".npz"), paths[0].with_suffix(".npz"))
    with pytest.raises(InputError, match="eval-val.npz are of different evaluations"):
        comparison.run(*paths, "val", tmp_path / "out2")
    # As they were written before results had marks.
    for path in paths:
        fields = json.loads(path.read_text())
        del fields["result"]
        path.write_text(json.dumps(fields))
    with pytest.raises(InputError, match="eval-val.npz are of different evaluations"):
        comparison.run(*paths, "val", tmp_path / "out3")
