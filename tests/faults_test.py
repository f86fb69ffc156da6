"""The campaign of faults: its frame, and a short form of each kind."""

import json
import shutil

import numpy as np
import pytest

from experiments.faults import broken_files, campaign, outcome, runs, values
from experiments.faults.outcome import Outcome
from segjax.runs import event_log
from tests import programs


def test_what_must_not_be_is_told_apart_and_counted():
    tries = [
        Outcome("a", "1", "survived"),
        Outcome("a", "2", "silent", "other pixels"),
        Outcome("b", "3", "refused", "x: no"),
        Outcome("a", "4", "traceback"),
        Outcome("b", "5", "lost"),
    ]
    assert [one.case for one in outcome.bad(tries)] == ["2", "4", "5"]
    assert outcome.rows(tries) == [
        ["a", "3", "1", "0", "0", "1", "1"],
        ["b", "2", "0", "1", "1", "0", "0"],
    ]
    with pytest.raises(ValueError, match="'good' is none of survived"):
        Outcome("a", "1", "good")


def test_mutated_files_are_read_as_they_were_or_refused(tmp_path):
    tries = broken_files.run(tmp_path, 126, seed=1)
    assert len(tries) > 100
    assert {one.fault for one in tries} >= {"a mutated image", "a mutated class list"}
    assert sum(one.verdict == "refused" for one in tries) > 30
    assert outcome.bad(tries) == []


def test_a_reader_that_says_nothing_is_found_out(tmp_path, monkeypatch):
    """The campaign itself: other pixels of a PNG, and an error that is no line."""
    monkeypatch.setattr(broken_files.sources, "read_image", lambda path: 1 / 0)
    tries = broken_files.run(tmp_path, 12, seed=1)
    assert "traceback" in {one.verdict for one in outcome.bad(tries)}
    monkeypatch.setattr(broken_files.sources, "read_image", lambda path: np.zeros((2, 2, 3)))
    assert "silent" in {one.verdict for one in broken_files.run(tmp_path, 12, seed=1)}


@pytest.mark.slow
def test_odd_values_of_config_keys_are_one_line_or_train(tmp_path):
    tries = values.run(tmp_path, 80, seed=1)
    assert len(tries) == 80
    assert outcome.bad(tries) == []
    assert {one.verdict for one in tries} == {"survived", "refused"}


def test_every_kind_of_fault_has_a_paragraph_and_a_table():
    made = {"commit": "a", "hardware": "h", "date": "d", "versions": {}}
    known = {
        name: made | {"rows": [["b", "3", "2", "1", "0", "0", "0"]]} for name in campaign.KINDS
    }
    text = "\n".join(campaign.page(known))
    assert f"| all | {3 * len(known)} | {2 * len(known)} | {len(known)} | 0 | 0 | 0 |" in text
    for kind in campaign.KINDS.values():
        assert f"## {kind.title}" in text
        assert kind.text in text


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of six steps."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    programs.train_plainly(programs.config(), workdir)
    return workdir


def without_an_event(run):
    path = run / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def other_scores(run):
    path = run / "eval-val.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"step": 5}))


def other_counts(run):
    path = run / "eval-val.npz"
    with np.load(path) as arrays:
        changed = dict(arrays) | {"confusion": arrays["confusion"] + 1}
    np.savez(path, **changed)


def an_older_checkpoint(run):
    shutil.rmtree(run / "checkpoints" / "6")


def without_a_picture(run):
    next((run / "pictures").glob("eval-*.png")).unlink()


def with_a_lock(run):
    (run / "lock.json").write_text("{}")


def with_other_times(run):
    events = event_log.read(run)
    text = "".join(json.dumps(event | {"time": 1.0}) + "\n" for event in events)
    (run / "metrics.jsonl").write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told", "verdict"),
    [
        (without_an_event, "no events of steps [1]", "lost"),
        (other_scores, "eval-val.json", "silent"),
        (other_counts, "eval-val.npz", "silent"),
        (an_older_checkpoint, "latest ['step']", "lost"),
        (without_a_picture, "no pictures/eval-", "lost"),
        (with_a_lock, "a lock is left", "silent"),
        (with_other_times, "", "survived"),
    ],
)
def test_ends_that_differ_are_told_apart(whole, tmp_path, change, told, verdict):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    change(run)
    assert told in "; ".join(runs.differences(run, whole))
    assert runs.judged("a", "b", run, whole, 0, "").verdict == verdict
    assert runs.judged("a", "b", run, whole, 0, "Traceback (most").verdict == "traceback"
    assert runs.judged("a", "b", run, whole, None, "").verdict == "lost"


SHORT = {
    "kills": 3, "signals": 1, "processes": 1, "disk": 5, "checkpoints": 3, "data": 2, "numbers": 4,
}  # fmt: skip
"""Kind -> tries; the page has those of the whole campaign."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_faults_of_runs_lose_nothing(name, tmp_path):
    tries = campaign.KINDS[name].run(tmp_path, SHORT[name])
    assert len(tries) >= SHORT[name]
    assert outcome.bad(tries) == []
