"""What can happen to a run, and what is done about it."""

import numpy as np
import pytest

from segjax.runs import orders
from segjax.training import guards


def test_stacks_are_printed_only_when_a_step_hangs(tmp_path, monkeypatch):
    armed = []
    monkeypatch.setattr(
        guards.faulthandler,
        "dump_traceback_later",
        lambda seconds, **_: armed.append(seconds),
    )
    with guards.Guards(tmp_path, 3, None, orders.Orders()) as guard:
        guard.beat()
        assert armed[-1] == guards._HANG_SECONDS
        guard._durations = [60.0] * 10
        guard.beat()
        assert armed[-1] == pytest.approx(60 * guards._HANG_FACTOR)


def test_batches_of_non_finite_steps_are_kept_until_there_are_too_many(tmp_path):
    batch = {"image": np.full((2, 3, 4, 3), 7, np.uint8), "position": np.arange(2)}
    guard = guards.Guards(tmp_path, 2, None, orders.Orders())
    assert not guard.broken(4, {"skipped": 0.0}, batch)
    assert not (tmp_path / "nonfinite").exists()
    assert not guard.broken(5, {"skipped": 1.0}, batch)
    assert guard.broken(6, {"skipped": 2.0}, batch)
    assert [path.name for path in sorted((tmp_path / "nonfinite").iterdir())] == [
        "step-0000005.npz", "step-0000006.npz"
    ]  # fmt: skip
    with np.load(tmp_path / "nonfinite" / "step-0000006.npz") as saved:
        assert int(saved["step"]) == 6
        np.testing.assert_array_equal(saved["image"], batch["image"])
    assert "for 2 steps in a row, up to step 6" in str(guard.error(6))
