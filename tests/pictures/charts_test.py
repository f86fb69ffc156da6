import sys

import numpy as np
import pytest

from segjax.pictures import charts
from tests.pictures.label_maps_test import PALETTE, SPEC, has, read


def events(count: int) -> list[dict]:
    history = [{"step": i, "train/loss": 1 / i, "train/lr": 0.1} for i in range(1, count + 1)]
    history[0]["train/loss"] = None
    history[-1]["train/loss"] = float("nan")
    return history + [{"step": count, "eval/miou": 0.5, "eval_ema/miou": 0.6, "unknown": 1.0}]


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"step": 1, "time": 0.0}],
        [{"step": 0, "train/loss": None}],
        [{"step": 5, "eval_ema/loss": 1.0, "train/data_wait": float("nan")}],
        events(40),
    ],
    ids=["empty", "nothing known", "null at step 0", "one point", "a run"],
)
def test_curves_of_any_history_are_drawn(tmp_path, history):
    charts.curves(history, tmp_path / "curves.png")
    assert read(tmp_path / "curves.png").std() > 0


def test_every_kind_of_event_gets_its_axes(tmp_path):
    keys = [key for *_, lines in charts._CURVES.values() for key in lines]
    charts.curves([{"step": 1, "train/loss": 1.0}], tmp_path / "one.png")
    charts.curves([{"step": 1} | dict.fromkeys(keys, 0.5)], tmp_path / "all.png")
    single, full = read(tmp_path / "one.png").shape, read(tmp_path / "all.png").shape
    assert full[0] == 2 * single[0]
    assert full[1] == 3 * single[1]


def test_smoothing_keeps_a_constant_and_skips_gaps():
    values = np.full(100, 3.0)
    values[[0, 40, 99]] = np.nan
    np.testing.assert_allclose(charts._smooth(values), 3.0)


def test_smoothing_does_not_lag_behind_a_slope():
    values = np.arange(300.0)
    np.testing.assert_allclose(charts._smooth(values)[20:-20], values[20:-20])


@pytest.mark.parametrize("iou", [[0.5, np.nan, 1.0], [np.nan] * 3, [0.0, 0.0, 0.0]])
def test_a_chart_of_any_scores_is_drawn(tmp_path, iou):
    charts.class_chart(np.array(iou), SPEC, tmp_path / "chart.png", title="a_b $ title")
    picture = read(tmp_path / "chart.png")
    assert has(picture, PALETTE[2]) == (iou[2] > 0)


def test_the_chart_marks_absent_classes_and_averages_the_present_ones(tmp_path, monkeypatch):
    texts = []
    monkeypatch.setattr(
        charts,
        "_save",
        lambda figure, _: texts.extend(t.get_text() for t in figure.axes[0].texts),
    )
    charts.class_chart(np.array([0.5, np.nan, 0.75]), SPEC, tmp_path / "x.png", title="t")
    assert texts == ["50.0", "absent", "75.0", "mIoU 62.5 over 2 of 3 classes"]


def test_a_chart_refuses_scores_of_another_number_of_classes(tmp_path):
    with pytest.raises(ValueError, match=r"iou must have shape \[3\], one per class, got \[4\]"):
        charts.class_chart(np.zeros(4), SPEC, tmp_path / "x.png", title="t")


def test_charts_need_no_window_system(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it raises now
    charts.curves(events(3), tmp_path / "curves.png")
    charts.class_chart(np.ones(3), SPEC, tmp_path / "chart.png", title="t")
