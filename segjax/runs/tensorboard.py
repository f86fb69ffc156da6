"""The TensorBoard events of a run."""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tensorboardX import event_file_writer
from tensorboardX.proto import event_pb2, summary_pb2

from segjax.errors import InputError
from segjax.pictures import layout


class Board:
    """A new event file, which makes TensorBoard forget what older ones hold from a step on.

    Every event is on disk at once. tensorboardX's `SummaryWriter` is not used: it writes from a
    thread behind a queue of ten, which loses the last two minutes of a killed run and blocks for
    good once the disk is full.

    Args:
        folder: of the event files.
        purge_step: the first step to forget.

    Raises:
        InputError: naming the folder, here and in every method, if the disk refuses.
    """

    def __init__(self, folder: pathlib.Path, purge_step: int):
        self._folder = folder
        with self._refusals():
            folder.mkdir(parents=True, exist_ok=True)
            # Its name has whole seconds only: two starts within one would overwrite each other.
            self._file = event_file_writer.EventsWriter(
                str(folder / "events"), f".{time.time_ns()}"
            )
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(purge_step, session_log=start)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds scalars by their tags."""
        value = summary_pb2.Summary.Value
        tags = [value(tag=key, simple_value=number) for key, number in values.items()]
        self._write(step, summary=summary_pb2.Summary(value=tags))

    def image(self, step: int, tag: str, rgb: np.ndarray) -> None:
        """Adds a picture uint8 [H, W, 3]."""
        image = summary_pb2.Summary.Image(
            height=rgb.shape[0],
            width=rgb.shape[1],
            colorspace=3,
            encoded_image_string=layout.encode_png(rgb),
        )
        value = summary_pb2.Summary.Value(tag=tag, image=image)
        self._write(step, summary=summary_pb2.Summary(value=[value]))

    def close(self) -> None:
        """Closes the file."""
        with self._refusals():
            self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=step, **content)
        with self._refusals():
            self._file.write_event(event)
            self._file.flush()

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"{self._folder}: {error.strerror or error}.") from error
