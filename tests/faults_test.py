"""The campaign of faults: its frame, and a short form of each kind."""

import numpy as np
import pytest

from experiments.faults import broken_files, outcome, values
from experiments.faults.outcome import Outcome


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
