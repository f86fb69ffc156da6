import json
import math
import types

import numpy as np
import pytest

from segjax.errors import InputError
from segjax.runs import event_log


def start(workdir, step=0, **options) -> event_log.EventLog:
    return event_log.EventLog(workdir, step=step, **options)


def steps(workdir) -> list[int]:
    return [event["step"] for event in event_log.read(workdir)]


def test_an_event_comes_back_with_its_step_and_time(tmp_path):
    with start(tmp_path / "run") as log:
        log.write(3, {"train/loss": np.float32(0.5), "train/lr": 0.1})
    (event,) = event_log.read(tmp_path / "run")
    assert event.pop("time") > 1e9
    assert event == {"step": 3, "train/loss": 0.5, "train/lr": 0.1}


def test_a_resumed_run_keeps_the_events_up_to_its_step_only(tmp_path):
    with start(tmp_path) as log:
        for step in (10, 20, 30):
            log.write(step, {"train/loss": 1.0})
    with start(tmp_path, step=20) as log:
        assert steps(tmp_path) == [10, 20]
        log.write(30, {"train/loss": 0.5})
    assert steps(tmp_path) == [10, 20, 30]
    assert event_log.read(tmp_path)[-1]["train/loss"] == 0.5


def test_a_run_from_the_start_keeps_nothing_not_even_its_step_zero(tmp_path):
    with start(tmp_path) as log:
        log.write(0, {"eval/miou": 0.1})
        log.write(10, {"train/loss": 1.0})
    start(tmp_path).close()
    assert steps(tmp_path) == []


def test_a_resumed_run_keeps_the_evaluation_before_the_first_step(tmp_path):
    with start(tmp_path) as log:
        log.write(0, {"eval/miou": 0.1})
    start(tmp_path, step=5).close()
    assert steps(tmp_path) == [0]


@pytest.mark.parametrize("torn", [b'{"step": 20, "train/lo', b'{"step": 20}', b"\0\0\0", b"7"])
def test_a_torn_last_line_is_dropped_and_the_next_event_is_whole(tmp_path, torn):
    with start(tmp_path) as log:
        log.write(10, {"train/loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    assert steps(tmp_path) == [10]
    with start(tmp_path, step=20) as log:
        log.write(30, {"train/loss": 1.0})
    assert steps(tmp_path) == [10, 30]
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 2


def test_values_that_are_not_finite_are_null_in_strict_json_and_nan_again_when_read(tmp_path):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    with start(tmp_path) as log:
        log.write(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5})
    line = (tmp_path / "metrics.jsonl").read_text()
    event = json.loads(line, parse_constant=refuse)
    assert [event[key] for key in "abcd"] == [None, None, None, 1.5]
    assert math.isnan(event_log.read(tmp_path)[0]["a"])


def test_an_event_is_on_disk_before_the_run_ends(tmp_path):
    with start(tmp_path) as log:
        log.write(1, {"train/loss": 2.0})
        assert steps(tmp_path) == [1]


def test_a_disabled_log_writes_nothing(tmp_path):
    with start(tmp_path) as log:
        log.write(1, {"train/loss": 2.0})
    before = sorted(tmp_path.rglob("*"))
    with start(tmp_path, enabled=False) as log:
        log.write(2, {"train/loss": 2.0})
        log.image(2, "picture", np.zeros((2, 2, 3), np.uint8))
    assert sorted(tmp_path.rglob("*")) == before
    assert steps(tmp_path) == [1]


def test_no_run_has_no_events(tmp_path):
    assert event_log.read(tmp_path / "nowhere") == []


def test_a_folder_that_cannot_be_made_is_one_line_that_names_it(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/run/metrics\.jsonl"):
        start(tmp_path / "file" / "run")


def test_a_log_that_lacks_an_event_knows_it(tmp_path, monkeypatch):
    with start(tmp_path) as log:
        log.write(1, {"a": 1})
        assert not log.broken

        def full(_text):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(log, "_lines", types.SimpleNamespace(write=full, close=lambda: None))
        with pytest.raises(InputError, match=r"metrics.jsonl: No space left on device"):
            log.write(2, {"a": 2})
        assert log.broken
