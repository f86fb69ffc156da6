"""Early stopping: a function of a run's events, the same with and without interruptions."""

import math
from collections.abc import Iterable, Mapping

import ml_collections
import numpy as np


def is_evaluation(
    event: Mapping[str, float], kinds: str | tuple[str, ...] = ("eval/", "eval_ema/")
) -> bool:
    """Whether an event of the log holds scores of an evaluation, of raw or averaged weights."""
    return any(key.startswith(kinds) for key in event)


def due(config: ml_collections.ConfigDict, step: int) -> bool:
    """Whether a run evaluates after a step."""
    return step > 0 and (step % config.every_steps.eval == 0 or step == config.total_steps)


class Watched:
    """The values of one scalar, one for each evaluation.

    Events are added in the order of the log, as they are written or read again. A scalar of
    training steps counts with its value at the evaluation, and not with those between.

    Args:
        metric: name of the scalar.
        events: events so far.
    """

    def __init__(self, metric: str, events: Iterable[Mapping[str, float]] = ()):
        self._metric = metric
        self._latest: float | None = None
        self._values: dict[int, float] = {}  # by step of the evaluation
        for event in events:
            self.add(event)

    def add(self, event: Mapping[str, float]) -> None:
        """Adds an event: "step" and its scalars."""
        if self._metric in event:
            value = float(event[self._metric])
            self._latest = value if math.isfinite(value) else math.nan  # as the log holds it
        if is_evaluation(event) and self._latest is not None:
            self._values[int(event["step"])] = self._latest

    def stopped(self, stop: ml_collections.ConfigDict) -> str | None:
        """Why the run ends after its last evaluation; None if it goes on.

        Args:
            stop: `config.stop`; reads `mode` and `patience`.
        """
        if not stop.patience or not self._values:
            return None
        sign = 1 if stop.mode == "max" else -1
        values = np.nan_to_num(sign * np.array([*self._values.values()]), nan=-np.inf)
        since = len(values) - 1 - int(np.argmax(values))
        if since < stop.patience:
            return None
        return (
            f"stopped early at step {max(self._values)}: {self._metric} has not improved for "
            f"{since} evaluations; raise config.stop.patience to go on, or set it to 0"
        )
