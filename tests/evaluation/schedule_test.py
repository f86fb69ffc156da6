"""Strips and windows: what is held of an image, and the truth of a strip."""

import math

import numpy as np
import pytest

from segjax.data.spec import VOID
from segjax.evaluation import fusion, schedule, views, window_grid

K = 4


def test_the_nearest_pixel_is_the_one_that_holds_the_centre():
    np.testing.assert_array_equal(schedule.nearest(7, 3), [0, 0, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(schedule.nearest(3, 7), [1, 3, 5])


@pytest.mark.parametrize("text", ["softmax='before_resize'", "fusion='max_logit'"])
def test_of_a_huge_image_a_strip_is_held(text):
    side, chosen = 10_000, views.parse(f"single, tile=(513, 513), {text}")
    limits = schedule.Limits(windows=3, strip_bytes=fusion.STRIP_BYTES, num_classes=K)
    huge = np.broadcast_to(np.uint8(0), (1, side, side, 3))
    batch = {"image": huge, "weight": np.ones(1, np.float32)}
    work = schedule.Work(chosen, batch, (side, side), limits)
    held = 4 * K * work.width * work.strip * (1 if chosen.linear else 2)
    assert fusion.STRIP_BYTES / 2 < held <= fusion.STRIP_BYTES
    view = window_grid.of_image(chosen, (side, side), (side, side))[0]
    across = len(view.cols.starts)
    for first in range(0, side, work.strip):
        alive = sum(len(part.windows) for part in work.parts_at(first))
        rows = math.ceil((work.strip + 513) / 342)  # of windows that reach it
        assert alive <= across * rows + 2 * limits.windows


def test_strips_hold_the_truth_of_counted_images_and_are_void_beyond():
    rng = np.random.default_rng(0)
    batch = {
        "image": np.zeros((2, 100, 70, 3), np.uint8),
        "label": rng.integers(0, K, (2, 100, 70), np.uint8),
        "weight": np.array([1, 0], np.float32),
    }
    limits = schedule.Limits(windows=3, strip_bytes=1, num_classes=K)
    work = schedule.Work(views.parse("single, flip=True"), batch, (100, 70), limits)
    assert (work.size, work.strip, work.width, work.count) == ((100, 70), 64, 128, 2)
    first, last = work.labels(0), work.labels(64)
    np.testing.assert_array_equal(first[0, :, :70], batch["label"][0, :64])
    np.testing.assert_array_equal(last[0, :36, :70], batch["label"][0, 64:])
    assert (first[:, :, 70:] == VOID).all()
    assert (last[:, 36:] == VOID).all()
    assert (first[1] == VOID).all()


def test_every_window_of_a_counted_image_is_seen_once():
    batch = {"image": np.zeros((3, 90, 130, 3), np.uint8), "weight": np.array([1, 0, 1])}
    chosen = views.parse("single, scales=(0.5, 1.0), tile=(32, 48), flip=True")
    limits = schedule.Limits(windows=4, strip_bytes=2**20, num_classes=K)
    work = schedule.Work(chosen, batch, (90, 130), limits)
    grids = window_grid.of_image(chosen, (90, 130), (90, 130))
    assert work.count == len(grids) == 4
    seen = [
        (row, id(rows), i, id(cols), j)
        for part in work.parts
        for row, rows, i, cols, j in part.windows
    ]
    expected = 2 * sum(len(grid.rows.starts) * len(grid.cols.starts) for grid in grids)
    assert len(seen) == len(set(seen)) == expected
    assert {row for row, *_ in seen} == {0, 2}
    assert max(len(part.windows) for part in work.parts) <= 4
