"""The verb that evaluates a checkpoint, with a CRF behind it."""

import json

import pytest

from tests import programs


@pytest.mark.slow
def test_the_verbs_take_a_crf_and_the_runs_own_is_the_default(tmp_path):
    workdir = tmp_path / "run"
    done = programs.forked(
        "main", "--config=configs/fcn8s.py:smoke", "--config.model.backbone.width=4",
        "--config.model.backbone.fc_width=8", "--config.eval.crf.preset=deeplab_v1",
        f"--workdir={workdir}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stored = json.loads((workdir / "eval-val.json").read_text())
    assert stored["protocol"]["crf"]["name"] == "deeplab_v1"
    for flags, name in (((), "eval-val"), (("--crf=none",), "eval-val-no_crf")):
        done = programs.forked("evaluate", f"--workdir={workdir}", "--step=latest", *flags)
        assert done.returncode == 0, done.stderr
        fields = json.loads((workdir / f"{name}.json").read_text())
        expected = stored["scores"]["miou"] if not flags else stored["before_crf"]["miou"]
        assert fields["scores"]["miou"] == expected
    assert (workdir / "pictures" / "eval-val-before.png").exists()
