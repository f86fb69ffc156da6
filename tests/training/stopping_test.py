"""Early stopping is a function of the events of a run."""

import math

import ml_collections
import pytest

from segjax.training import stopping


def stop(patience: int, mode: str = "max") -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict({"patience": patience, "mode": mode})


def evaluations(*scores: float) -> list[dict]:
    return [{"step": 10 * i, "eval/miou": score} for i, score in enumerate(scores, 1)]


@pytest.mark.parametrize(
    ("scores", "patience", "mode", "expected"),
    [
        ((0.1, 0.5, 0.4, 0.3), 2, "max", (40, 2)),
        ((0.1, 0.5, 0.4, 0.3), 3, "max", None),
        ((0.1, 0.5, 0.4, 0.3), 0, "max", None),
        ((0.1, 0.5, 0.5, 0.5), 2, "max", (40, 2)),  # as good is no gain
        ((0.3, 0.1, 0.2, 0.3), 2, "min", (40, 2)),
        ((0.3, math.nan, math.inf), 2, "max", (30, 2)),  # neither is a gain
        ((math.nan, math.nan, 0.1), 2, "max", None),
        ((), 1, "max", None),
    ],
)
def test_a_run_ends_after_so_many_evaluations_without_a_gain(scores, patience, mode, expected):
    watched = stopping.Watched("eval/miou", evaluations(*scores))
    why = watched.stopped(stop(patience, mode))
    if expected is None:
        assert why is None
    else:
        assert f"step {expected[0]}: eval/miou has not improved for {expected[1]} eval" in why


def test_a_scalar_of_training_steps_counts_once_an_evaluation():
    losses = {1: 0.9, 2: 0.8, 3: 0.3, 4: 0.2, 5: 0.7, 6: 0.6}
    events = []
    for step, loss in losses.items():
        events.append({"step": step, "train/loss": loss})
        if step % 2 == 0:
            events.append({"step": step, "eval/miou": 0.5})
            events.append({"step": step, "eval_ema/miou": 0.5})
    watched = stopping.Watched("train/loss", events)
    assert "at step 6" in watched.stopped(stop(1, "min"))  # of 0.8, 0.2, 0.6
    assert watched.stopped(stop(2, "min")) is None


def test_the_events_read_again_decide_as_those_that_were_written():
    written = stopping.Watched("eval_ema/miou")
    events = []
    for step, (raw, averaged) in enumerate([(0.1, 0.4), (0.2, 0.3), (0.3, math.inf)], 1):
        for event in ({"eval/miou": raw}, {"eval_ema/miou": averaged}):
            written.add(event | {"step": step})
            events.append(event | {"step": step})
    read = [{k: v if math.isfinite(v) else math.nan for k, v in e.items()} for e in events]
    for patience in (1, 2, 3):
        again = stopping.Watched("eval_ema/miou", read)
        assert again.stopped(stop(patience)) == written.stopped(stop(patience))
    assert "at step 3" in written.stopped(stop(2))
