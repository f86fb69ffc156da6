"""A metric of one's own: counted exactly, logged, written, and chosen by."""

import json

import numpy as np
import pytest

from segjax import network as networks
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.evaluation import report
from segjax.runs import event_log
from tests import programs, tiny
from tests.evaluation import made as scenes

SURE, CONFIDENT, CORNER = (f"tests.metrics.made:{n}" for n in ("Sure", "Confident", "Corner"))
METRICS = ((SURE, {"above": 0.25}), CONFIDENT, CORNER)


def scene(devices: int, **changes) -> scenes.Scene:
    options = {"eval__limit": 7, "eval__batch_size": 8, "eval__metrics": METRICS} | changes
    return scenes.on_scenes(tiny.short_config(**options), devices)


def evaluated(where: scenes.Scene, views: str = ""):
    """(result, what each image's prediction says: right pixels by item of the data set)."""
    right, corner = {}, {}

    def observe(index, example):
        _, truth, prediction = example
        right[index] = ((prediction == truth) & (truth != VOID)).sum(), (truth != VOID).sum()
        corner[index] = prediction[-1, -1] == truth[-1, -1] != VOID, truth[-1, -1] != VOID

    result = where.evaluator(views, details=True)(where.network, observe=observe)
    return result, right, corner


@pytest.mark.parametrize(
    ("views", "devices", "changes"),
    [
        ("single", 1, {}),
        ("single", 8, {"loss__blocks": 5}),
        ("single", 1, {"eval__batch_size": 3, "loss__blocks": 1}),
        ("single, flip=True", 1, {"eval__batch_size": 3}),
        ("single, tile=(40, 48)", 8, {}),
    ],
)
def test_blocks_devices_and_batches_count_every_pixel_of_every_image_once(views, devices, changes):
    where = scene(devices, **changes | {"eval__metrics": ((SURE, {"above": 0.0}), CORNER)})
    result, right, corner = evaluated(where, views)
    expected = np.array([right[int(index)] for index in result.index])
    assert result.totals["sure"] == dict(zip(("sure", "valid"), expected.sum(0), strict=True))
    np.testing.assert_array_equal(result.images["sure"]["share"], expected[:, 0] / expected[:, 1])
    assert result.scalars()["sure"] == result.scalars()["pixel_accuracy"]
    corners = np.array([corner[int(index)] for index in result.index])
    assert result.totals["corner"] == dict(zip(("right", "valid"), corners.sum(0), strict=True))
    np.testing.assert_array_equal(result.images["corner"]["right"], corners[:, 0])


def test_what_it_finds_and_keeps_is_in_the_table_and_both_files(tmp_path):
    where = scene(1)
    result, *_ = evaluated(where)
    evaluator, path = where.evaluator(details=True), tmp_path / "eval-val.json"
    names = [where.split.source.name(int(index)) for index in result.index]
    report.write(path, result, evaluator.protocol, report.Origin(1, "raw", "", 1), names)
    fields = json.loads(path.read_text())
    scalars = result.scalars()
    for name in ("sure", "confident", "corner"):
        assert fields["scores"][name] == scalars[name]
    assert fields["least_sure"] == result.images["sure"]["share"].min()
    with np.load(path.with_suffix(".npz")) as arrays:
        np.testing.assert_array_equal(arrays["sure.share"], result.images["sure"]["share"])
        np.testing.assert_array_equal(arrays["corner.right"], result.images["corner"]["right"])
        assert "marginals" in arrays.files
    table = report.table(result, where.training.model.spec)
    assert f"sure {scalars['sure']:.3f}" in table
    assert f"confident {scalars['confident']:.4f}" in table
    assert f"corner {scalars['corner']:.4f}" in table


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose best checkpoint is the most confident one."""
    workdir = tmp_path_factory.mktemp("own") / "run"
    config = programs.config(
        eval__metrics=METRICS, best__metric="eval/confident", best__keep=1, total_steps=6,
        every_steps__eval=1, optim__lr=0.2, optim__schedule="constant",
    )  # fmt: skip
    programs.train_plainly(config, workdir)
    return workdir


def test_its_scalar_is_logged_and_chooses_the_best_checkpoint(trained):
    events = [event for event in event_log.read(trained) if "eval/confident" in event]
    confident, miou = (
        {event["step"]: event[f"eval/{name}"] for event in events} for name in ("confident", "miou")
    )
    assert sorted(confident) == [1, 2, 3, 4, 5, 6]
    best = max(confident, key=confident.get)
    assert best not in (6, max(miou, key=miou.get))  # the latest is kept in any case
    assert networks.load(trained, "best").step == best
    assert all("eval/sure" in event for event in events)
    averaged = [event for event in event_log.read(trained) if "eval_ema/sure" in event]
    assert len(averaged) == 6
    assert not any("eval/corner" in event for event in events)  # counted by evaluate
    stored = json.loads((trained / "eval-val.json").read_text())
    assert stored["scores"]["confident"] == confident[6]
    assert "least_sure" in stored
    with np.load(trained / "eval-val.npz") as arrays:
        assert arrays["sure.share"].shape == (8,)


def test_what_it_does_not_take_is_refused_before_anything_is_written(tmp_path):
    cases = (
        (((SURE, {"abvoe": 0.5}),), "takes no 'abvoe'.*Did you mean \"above\""),
        ((SURE, SURE), "two metrics are named 'sure'"),
        (("tests.metrics.made:Loud",), "two metrics give a scalar 'loss'"),
    )
    for more, told in cases:
        config = programs.config(eval__metrics=more)
        with pytest.raises(InputError, match=told):
            programs.train_plainly(config, tmp_path / "run")
    config = programs.config(best__metric="eval/sure")
    with pytest.raises(InputError, match="config.best.metric: no scalar is called 'eval/sure'"):
        programs.train_plainly(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
