import math
import pathlib
import struct

import cv2
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from segjax.errors import InputError
from segjax.runs import event_log, tensorboard


def read(folder: pathlib.Path) -> list[event_pb2.Event]:
    """Reads the TFRecord framing: length, its checksum, data, their checksum."""
    events = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            events.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
        assert at == len(data)
    return events


def test_an_event_file_holds_scalars_and_a_picture(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    board = tensorboard.Board(tmp_path, 0)
    board.scalars(3, {"train/loss": 0.25, "train/bad": math.nan})
    board.image(4, "val/panel", rgb)
    board.close()
    *_, scalars, picture = read(tmp_path)
    assert scalars.step == 3
    values = {v.tag: v.simple_value for v in scalars.summary.value}
    assert values["train/loss"] == 0.25
    assert math.isnan(values["train/bad"])
    (value,) = picture.summary.value
    assert (picture.step, value.tag) == (4, "val/panel")
    assert (value.image.height, value.image.width, value.image.colorspace) == (5, 7, 3)
    png = np.frombuffer(value.image.encoded_image_string, np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(png, cv2.IMREAD_COLOR_RGB), rgb)


def test_an_event_is_on_disk_at_once(tmp_path):
    tensorboard.Board(tmp_path, 0).scalars(1, {"train/loss": 2.0})
    assert read(tmp_path)[-1].summary.value[0].simple_value == 2.0


def test_two_starts_within_a_second_have_files_of_their_own(tmp_path):
    for _ in range(2):
        tensorboard.Board(tmp_path, 0).close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_resumed_run_tells_tensorboard_from_where_to_forget(tmp_path):
    for step in (0, 20):
        with event_log.EventLog(tmp_path, step=step) as log:
            log.write(step, {"a": 1.0})
    events = read(tmp_path / "tensorboard")
    sessions = [event for event in events if event.HasField("session_log")]
    assert [event.step for event in sessions] == [0, 21]
    assert all(event.session_log.status == event_pb2.SessionLog.START for event in sessions)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/board: File exists|file/board: Not a directory"):
        tensorboard.Board(tmp_path / "file" / "board", 0)
