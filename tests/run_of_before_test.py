"""A run folder that commit 26ab59c wrote resumes, evaluates and predicts, wherever its data went.

tests/fixtures/run_26ab59c.zip holds the run after four steps, the data, what that commit's predict
wrote, and the metrics of its own resume to six steps.
"""

import json
import pathlib
import shutil
import zipfile

import jax
import numpy as np
import pytest

import segjax
from segjax import network as networks
from segjax.data import catalog, png, sources
from segjax.data.splits import open_split
from segjax.errors import InputError
from segjax.evaluation import comparison, kept, report
from segjax.evaluation import protocol as protocols
from segjax.evaluation.evaluator import Evaluator
from segjax.evaluation.protocol import Protocol
from segjax.runs import event_log
from tests import programs
from tests.runs.run_folder_test import its_config

FIXTURE = programs.ROOT / "tests" / "fixtures" / "run_26ab59c.zip"


@pytest.fixture
def unpacked(tmp_path) -> pathlib.Path:
    """The archive's folder, whose data has moved to another one of another name."""
    with zipfile.ZipFile(FIXTURE) as archive:
        archive.extractall(tmp_path)
    shutil.move(tmp_path / "streets", tmp_path / "elsewhere" / "roads")
    return tmp_path


def config(unpacked: pathlib.Path, **changes):
    """The run's config, where its data is now."""
    made = its_config()
    made.data.root = str(unpacked / "elsewhere" / "roads")
    for key, value in changes.items():
        made[key] = value
    return made


def test_it_resumes_with_the_losses_that_it_would_have_had(unpacked):
    expected = [json.loads(line) for line in (unpacked / "resumed.jsonl").read_text().splitlines()]
    programs.train_plainly(config(unpacked, total_steps=6), unpacked / "run")
    found = event_log.read(unpacked / "run")
    assert [event["step"] for event in found] == [event["step"] for event in expected]
    for event, before in zip(found, expected, strict=True):
        for key in before.keys() - {"time"}:
            if not any(word in key for word in ("images_per_s", "step_ms", "data_wait")):
                # Its running variance was divided by n: a pixel or two change their bin.
                bound = 1e-3 if key.endswith("/ece") else 1e-4
                assert event[key] == pytest.approx(before[key], rel=bound), (event["step"], key)
    assert programs.final(unpacked / "run")["step"] == 6


def test_it_evaluates_to_the_stored_scores(unpacked):
    run = networks.load(unpacked / "run", "latest")
    run.config.data.root = config(unpacked).data.root
    split = open_split(catalog.load(**run.config.data), "val")
    trained = Protocol.from_json(run.meta["protocol"])
    protocol = protocols.resolve(run.config, run.bucket)
    assert protocol == trained
    evaluator = Evaluator(run.config, run.network.model, run.mesh, split, protocol, details=True)
    path = unpacked / "again" / "eval-val.json"
    origin = report.Origin(run.step, "raw", split.scan.fingerprint, run.meta["fingerprint"])
    kept.evaluate(evaluator, run.network, path, origin)
    again, stored = (
        json.loads(file.read_text()) for file in (path, unpacked / "run" / "eval-val.json")
    )
    assert again["scores"] == pytest.approx(stored["scores"], rel=1e-5)
    for key in ("iou", "accuracy", "examples", "classes_counted", "step", "checkpoint"):
        assert again[key] == stored[key]
    assert again["protocol"] == stored["protocol"]
    assert again["miou_interval"] == pytest.approx(stored["miou_interval"])
    with np.load(path.with_suffix(".npz")) as new, np.load(unpacked / "run/eval-val.npz") as old:
        for key in old.files:
            np.testing.assert_array_equal(new[key], old[key], err_msg=key)
    assert stored["data"] == split.scan.old_fingerprint("streets")


def test_it_predicts_the_labels_that_it_predicted(unpacked):
    net = segjax.load(unpacked / "run", step="latest")
    assert net.step == 4
    files = sorted((unpacked / "predicted").iterdir())
    assert [file.name for file in files] == ["0.png", "1.png", "2.png"]
    for file in files:
        image = sources.read_image(unpacked / "elsewhere/roads/images/val" / file.name)
        np.testing.assert_array_equal(net.label(image), png.decode_mask(file.read_bytes(), ""))


def test_averaged_weights_are_there_and_the_state_is_whole(unpacked):
    raw, ema = (networks.load(unpacked / "run", "best", kind) for kind in ("raw", "ema"))
    assert raw.step == ema.step == 4
    differ = [
        bool((a != b).any())
        for a, b in zip(*map(jax.tree.leaves, (raw.network, ema.network)), strict=True)
    ]
    assert sum(differ) > len(differ) / 2


def test_its_evaluation_compares_with_one_of_today_though_the_data_were_renamed(unpacked):
    made = config(unpacked)
    dataset = catalog.load(**made.data)
    shutil.copytree(unpacked / "run", unpacked / "again")
    for name in ("run", "again"):
        (unpacked / name / "config.json").write_text(made.to_json())
    path = unpacked / "again" / "eval-val.json"
    stored = json.loads(path.read_text())
    now = open_split(dataset, "val").scan.fingerprint
    path.write_text(json.dumps(stored | {"data": now}))
    runs = [comparison.load(unpacked / name, "") for name in ("run", "again")]
    comparison.check_data(*runs, dataset)
    path.write_text(json.dumps(stored | {"data": "other"}))
    with pytest.raises(InputError, match="used different data"):
        comparison.check_data(runs[0], comparison.load(path, ""), dataset)


def test_other_data_at_the_new_place_is_refused_and_nothing_changes(unpacked):
    label = unpacked / "elsewhere" / "roads" / "labels" / "train" / "3.png"
    shutil.copy(label.with_name("4.png"), label)
    before = (unpacked / "run" / "config.json").read_bytes()
    with pytest.raises(InputError, match="trained on other data"):
        programs.train_plainly(config(unpacked, total_steps=6), unpacked / "run")
    assert (unpacked / "run" / "config.json").read_bytes() == before
