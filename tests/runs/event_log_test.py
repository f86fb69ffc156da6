import contextlib
import io
import json
import math
import struct

import cv2
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from segjax import tables
from segjax.errors import InputError
from segjax.runs import event_log, progress


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def start(workdir, step=0, **options) -> event_log.Tracker:
    return event_log.Tracker(workdir, **{"step": step, "total_steps": 100} | options)


def board_events(workdir) -> list[event_pb2.Event]:
    """Reads the TFRecord framing: length, its checksum, data, their checksum."""
    events = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            events.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
        assert at == len(data)
    return events


def steps(workdir) -> list[int]:
    return [event["step"] for event in event_log.read_metrics(workdir)]


def test_an_event_comes_back_with_its_step_and_time(tmp_path):
    with start(tmp_path / "run") as tracker:
        tracker.write(3, {"train/loss": np.float32(0.5), "train/lr": 0.1})
        (event,) = tracker.history()
    assert event.pop("time") > 1e9
    assert event == {"step": 3, "train/loss": 0.5, "train/lr": 0.1}


def test_a_resumed_run_keeps_the_events_up_to_its_step_only(tmp_path):
    with start(tmp_path) as tracker:
        for step in (10, 20, 30):
            tracker.write(step, {"train/loss": 1.0})
    with start(tmp_path, step=20) as tracker:
        assert [event["step"] for event in tracker.history()] == [10, 20]
        tracker.write(30, {"train/loss": 0.5})
    assert steps(tmp_path) == [10, 20, 30]
    assert event_log.read_metrics(tmp_path)[-1]["train/loss"] == 0.5


def test_a_run_from_the_start_keeps_nothing_not_even_its_step_zero(tmp_path):
    with start(tmp_path) as tracker:
        tracker.write(0, {"eval/miou": 0.1})
        tracker.write(10, {"train/loss": 1.0})
    start(tmp_path).close()
    assert steps(tmp_path) == []


def test_a_resumed_run_keeps_the_evaluation_before_the_first_step(tmp_path):
    with start(tmp_path) as tracker:
        tracker.write(0, {"eval/miou": 0.1})
    start(tmp_path, step=5).close()
    assert steps(tmp_path) == [0]


@pytest.mark.parametrize("torn", [b'{"step": 20, "train/lo', b'{"step": 20}', b"\0\0\0", b"7"])
def test_a_torn_last_line_is_dropped_and_the_next_event_is_whole(tmp_path, torn):
    with start(tmp_path) as tracker:
        tracker.write(10, {"train/loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    assert steps(tmp_path) == [10]
    with start(tmp_path, step=20) as tracker:
        tracker.write(30, {"train/loss": 1.0})
    assert steps(tmp_path) == [10, 30]
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 2


def test_values_that_are_not_finite_are_null_in_strict_json_and_nan_again_when_read(tmp_path):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    with start(tmp_path) as tracker:
        tracker.write(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5})
    line = (tmp_path / "metrics.jsonl").read_text()
    event = json.loads(line, parse_constant=refuse)
    assert [event[key] for key in "abcd"] == [None, None, None, 1.5]
    assert math.isnan(event_log.read_metrics(tmp_path)[0]["a"])


def test_an_event_is_on_disk_before_the_run_ends(tmp_path):
    with start(tmp_path) as tracker:
        tracker.write(1, {"train/loss": 2.0})
        assert steps(tmp_path) == [1]
        assert board_events(tmp_path)[-1].summary.value[0].simple_value == 2.0


def test_a_disabled_tracker_writes_nothing_and_still_reads(tmp_path):
    with start(tmp_path) as tracker:
        tracker.write(1, {"train/loss": 2.0})
    before = sorted(tmp_path.rglob("*"))
    stream = io.StringIO()
    with start(tmp_path, enabled=False, stream=stream) as tracker:
        tracker.write(2, {"train/loss": 2.0})
        tracker.image(2, "picture", np.zeros((2, 2, 3), np.uint8))
        tracker.progress(100, "text")
        assert [event["step"] for event in tracker.history()] == [1]
    assert sorted(tmp_path.rglob("*")) == before
    assert not stream.getvalue()


def test_no_run_has_no_events(tmp_path):
    assert event_log.read_metrics(tmp_path / "nowhere") == []


def test_a_folder_that_cannot_be_made_is_one_line_that_names_it(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/run/metrics\.jsonl"):
        start(tmp_path / "file" / "run")


def test_tensorboard_files_hold_scalars_and_a_picture(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    with start(tmp_path) as tracker:
        tracker.write(3, {"train/loss": 0.25, "train/bad": math.nan})
        tracker.image(4, "val/panel", rgb)
    *_, scalars, picture = board_events(tmp_path)
    assert scalars.step == 3
    assert {v.tag: v.simple_value for v in scalars.summary.value}["train/loss"] == 0.25
    (value,) = picture.summary.value
    assert (picture.step, value.tag) == (4, "val/panel")
    assert (value.image.height, value.image.width, value.image.colorspace) == (5, 7, 3)
    png = np.frombuffer(value.image.encoded_image_string, np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(png, cv2.IMREAD_COLOR_RGB), rgb)


def test_a_resumed_run_tells_tensorboard_from_where_to_forget(tmp_path):
    start(tmp_path).close()
    start(tmp_path, step=20).close()
    sessions = [e for e in board_events(tmp_path) if e.HasField("session_log")]
    assert [e.step for e in sessions] == [0, 21]
    assert all(e.session_log.status == event_pb2.SessionLog.START for e in sessions)


def test_the_time_left_counts_this_start_without_its_first_step(tmp_path):
    clock, stream = Clock(), Terminal()
    with start(tmp_path, step=40, total_steps=1000, clock=clock, stream=stream) as tracker:
        clock.now += 500  # compilation
        tracker.progress(41, "loss 0.53")
        clock.now += 50
        tracker.progress(51, "loss 0.52")
    first, second = stream.getvalue().split("\r")[1:]
    assert first.startswith("step 41/1000 4% | -:--:-- left | loss 0.53")
    assert second.startswith("step 51/1000 5% | 1:19:05 left | loss 0.52")  # 949 steps of 5 s
    assert second.endswith("\n")


def test_a_line_for_a_terminal_does_not_wrap(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    with start(tmp_path, stream=stream) as tracker:
        tracker.progress(1, "x" * 200)
    assert len(stream.getvalue().strip("\r\n").removesuffix("\x1b[K")) == 39


def test_a_log_file_gets_a_line_every_ten_seconds_and_the_last(tmp_path):
    clock, stream = Clock(), io.StringIO()
    with start(tmp_path, clock=clock, stream=stream) as tracker:
        for step in range(1, 101):
            tracker.progress(step)
            clock.now += 0.3
    lines = stream.getvalue().splitlines()
    assert [int(line.split("/")[0].removeprefix("step ")) for line in lines] == [1, 35, 69, 100]
    assert lines[-1] == "step 100/100 100% | 0:00:00 left"
    assert "\r" not in stream.getvalue()


def test_the_meter_divides_by_the_time_that_counts():
    clock = Clock()
    meter = progress.Meter(clock=clock)
    for _ in range(4):
        with meter.waiting():
            clock.now += 0.5
        clock.now += 1.5
        meter.step(images=8)
    with meter.paused():
        clock.now += 1000
        with meter.paused(), meter.waiting():
            clock.now += 1000
    rates = meter.read_and_reset()
    assert rates == {
        "train/images_per_s": pytest.approx(32 / 8),
        "train/step_ms": pytest.approx(2000),
        "train/data_wait": pytest.approx(0.25),
    }


class Device:
    """One that tells its memory."""

    def __init__(self, stats: dict[str, int] | None):
        self.stats = stats

    def memory_stats(self) -> dict[str, int] | None:
        return self.stats


def test_the_peak_of_memory_is_that_of_the_fullest_device_that_tells():
    told = [Device({"peak_bytes_in_use": gib * 2**30}) for gib in (3, 5)]
    assert progress.peak_memory([Device(None), *told]) == {"train/peak_gib": 5}
    assert progress.peak_memory([Device(None), Device({"bytes_limit": 1})]) == {}


def test_the_meter_starts_anew_after_it_was_read():
    clock = Clock()
    meter = progress.Meter(clock=clock)
    clock.now += 7
    meter.step(images=1)
    meter.read_and_reset()
    assert meter.read_and_reset() == {}
    clock.now += 2
    meter.step(images=6)
    assert meter.read_and_reset()["train/images_per_s"] == pytest.approx(3)


def test_the_meter_counts_again_after_an_evaluation_that_failed():
    clock = Clock()
    meter = progress.Meter(clock=clock)
    with contextlib.suppress(KeyError), meter.paused():
        clock.now += 5
        raise KeyError
    clock.now += 2
    meter.step(images=4)
    assert meter.read_and_reset()["train/images_per_s"] == pytest.approx(2)


def test_a_table_aligns_numbers_at_the_right():
    rows = [("road", 0.5, 1200), ("sign symbol", math.nan, 3), ("car", "absent", 45)]
    assert tables.format_table(rows, ("class", "IoU", "pixels")) == (
        "class           IoU  pixels\n"
        "-----------  ------  ------\n"
        "road         0.5000    1200\n"
        "sign symbol       -       3\n"
        "car          absent      45"
    )


def test_text_in_a_table_is_left_aligned_without_trailing_blanks():
    rows = [("road", "ok"), ("car", "missing")]
    assert tables.format_table(rows, ("class", "state")).splitlines()[2] == "road   ok"


def test_a_table_without_rows_is_its_header():
    assert tables.format_table([], ("a", "b")) == "a  b\n-  -"


def test_a_table_refuses_a_row_of_another_length():
    with pytest.raises(ValueError):
        tables.format_table([("a",)], ("a", "b"))
