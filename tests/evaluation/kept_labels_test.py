"""The label maps beside a file of scores."""

import numpy as np
import pytest

from segjax.errors import InputError
from segjax.evaluation import kept_labels
from tests import tiny


def test_label_maps_of_an_evaluation_before_are_gone(tmp_path):
    path = tmp_path / "eval-val.json"
    for name in ("eval-val-labels.zip", "eval-val-labels-1.zip", "eval-val-other-labels.zip"):
        (tmp_path / name).write_bytes(b"old")
    with kept_labels.Writer(path, tiny.SPEC) as labels:
        labels.add("deep/er", np.ones((3, 4), np.uint8))
    assert [file.name for file in kept_labels.files_of(path)] == ["eval-val-labels.zip"]
    np.testing.assert_array_equal(kept_labels.Reader(path, "")["deep/er"], np.ones((3, 4)))
    with pytest.raises(InputError, match="no label map of other"):
        kept_labels.Reader(path, "")["other"]
    assert (tmp_path / "eval-val-other-labels.zip").exists()


def test_label_maps_of_an_evaluation_before_stay_until_others_are_whole(tmp_path):
    path = tmp_path / "eval-val.json"
    with kept_labels.Writer(path, tiny.SPEC) as labels:
        labels.add("one", np.ones((3, 4), np.uint8))
    broken = kept_labels.Writer(path, tiny.SPEC)
    broken.add("one", np.zeros((3, 4), np.uint8))
    np.testing.assert_array_equal(kept_labels.Reader(path, "")["one"], np.ones((3, 4)))
    broken.__exit__(RuntimeError, RuntimeError(), None)
    np.testing.assert_array_equal(kept_labels.Reader(path, "")["one"], np.ones((3, 4)))


def test_maps_of_several_processes_are_read_as_one(tmp_path, monkeypatch):
    path = tmp_path / "eval-val.json"
    monkeypatch.setattr(kept_labels.jax, "process_count", lambda: 2)
    for process, name in ((0, "first"), (1, "second")):
        monkeypatch.setattr(kept_labels.jax, "process_index", lambda process=process: process)
        with kept_labels.Writer(path, tiny.SPEC) as labels:
            labels.add(name, np.full((2, 3), process, np.uint8))
    reader = kept_labels.Reader(path, "")
    np.testing.assert_array_equal(reader["first"], np.zeros((2, 3)))
    np.testing.assert_array_equal(reader["second"], np.ones((2, 3)))


def test_label_maps_that_are_missing_or_broken_are_one_line(tmp_path):
    path = tmp_path / "eval-val.json"
    with pytest.raises(InputError, match="has no label maps beside it .*run segjax.evaluate"):
        kept_labels.Reader(path, "")
    (tmp_path / "eval-val-labels.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="eval-val-labels.zip cannot be read"):
        kept_labels.Reader(path, "")


def test_an_evaluation_that_fails_leaves_no_half_of_a_zip(tmp_path):
    path = tmp_path / "eval-val.json"

    def fail():
        with kept_labels.Writer(path, tiny.SPEC) as labels:
            labels.add("one", np.zeros((3, 4), np.uint8))
            raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="the device is gone"):
        fail()
    assert kept_labels.files_of(path) == []
    assert list(tmp_path.iterdir()) == []


def test_label_maps_of_another_result_are_refused(tmp_path):
    path = tmp_path / "eval-val.json"
    with kept_labels.Writer(path, tiny.SPEC) as labels:
        labels.add("one", np.zeros((3, 4), np.uint8))
        labels.sign("abc")
    assert kept_labels.Reader(path, "abc")["one"].shape == (3, 4)
    for mark in ("", "abd"):
        with pytest.raises(InputError, match="eval-val-labels.zip holds label maps of another"):
            kept_labels.Reader(path, mark)
