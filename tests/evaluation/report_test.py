"""Tables and files of scores."""

import json

import numpy as np
import pytest

from segjax import crf as crfs
from segjax.evaluation import report
from segjax.metrics import class_boundaries, confusion
from tests import tiny
from tests.evaluation import made

TWICE = "single, scales=(0.75, 1.0), flip=True"
CRF = "deeplab_v1, w1=6.0, theta_alpha=9.0, theta_beta=12.0, iterations=4"


@pytest.fixture(scope="module")
def scene():
    return made.on_scenes(tiny.short_config(eval__limit=6, eval__batch_size=4))


def written(path, evaluator, result) -> dict:
    """The fields of the file of scores."""
    origin = report.Origin(3, "raw", "abc", 12)
    report.write(path, result, evaluator.protocol, origin, evaluator.names(result))
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def twice(scene, tmp_path_factory):
    """The result under scales with flips, its file and the file's fields."""
    evaluator = scene.evaluator(TWICE, details=True)
    result = evaluator(scene.network)
    path = tmp_path_factory.mktemp("report") / "eval-val-twice.json"
    return result, path, written(path, evaluator, result)


def test_the_file_of_scores_says_how_they_were_made(scene, twice):
    result, path, fields = twice
    assert fields["protocol"] == json.loads(json.dumps(scene.protocol(TWICE).to_json()))
    assert fields["protocol"]["views"]["scales"] == [0.75, 1.0]
    assert fields["protocol"]["views"]["flip"] is True
    assert (fields["data"], fields["checkpoint"], fields["step"]) == ("abc", 12, 3)
    assert fields["weights"] == "raw"
    assert fields["examples"] == 6
    assert fields["versions"]["jax"]
    assert "before_crf" not in fields
    interval = fields["miou_interval"]
    assert interval["low"] <= fields["scores"]["miou"] <= interval["high"]
    assert fields["scores"] == pytest.approx(result.scalars())
    assert set(fields["bands"]) == {str(width) for width in class_boundaries.BANDS}
    assert 0 <= fields["boundary_f1"]["mean"] <= 1
    assert 0 <= fields["boundary_iou"]["mean"] <= 1
    with np.load(path.with_suffix(".npz")) as arrays:
        np.testing.assert_array_equal(
            confusion.marginals(arrays["confusion"]), arrays["marginals"].sum(0)
        )
        assert len(arrays["names"]) == 6
        np.testing.assert_array_equal(arrays["index"], result.index)
        for key, value in result.images["boundaries"].items():
            np.testing.assert_array_equal(arrays[key], value)


def test_the_table_names_classes_means_and_boundaries(scene, twice):
    spec = scene.training.model.spec
    text = report.table(twice[0], spec)
    for name in spec.classes:
        assert name in text
    assert "boundary F1" in text
    assert "Boundary IoU" in text
    assert " to " in text
    assert "6 images" in text


def test_the_scores_before_and_after_a_crf_are_kept_and_told(scene, tmp_path):
    evaluator = scene.evaluator(crf=CRF)
    result = evaluator(scene.network)
    table = report.table(result, scene.training.model.spec)
    assert "before the CRF: miou" in table
    fields = written(tmp_path / "eval-val.json", evaluator, result)
    assert fields["before_crf"]["miou"] == pytest.approx(float(result.before.miou))
    assert fields["scores"]["miou_before_crf"] == fields["before_crf"]["miou"]
    assert fields["protocol"]["crf"] == crfs.parse(CRF).to_json()


def test_the_name_of_a_file_says_what_is_not_the_runs_own(tmp_path):
    def name(**parts):
        return report.path_of(tmp_path, "val", **parts).name

    assert name() == "eval-val.json"
    assert name(weights="ema") == "eval-val-ema.json"
    every = {"views": "fcn", "crf": "full", "weights": "ema", "more": "statistics"}
    assert name(**every) == "eval-val-fcn-full-ema-statistics.json"
