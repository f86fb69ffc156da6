"""The scores of checkpoints, and which of them are kept for their sake."""

import json
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from segjax import files
from segjax.errors import InputError


class Scores:
    """The scalars of evaluations beside their checkpoints, and the choice of the best.

    Args:
        directory: folder of the checkpoints.
        metric: scalar that selects the best checkpoint.
        mode: "max" or "min".
        keep: number of latest checkpoints to keep besides the best.
    """

    def __init__(self, directory: pathlib.Path, *, metric: str, mode: str, keep: int):
        if mode not in ("max", "min"):
            raise InputError(f'config.best.mode is "max" or "min", got {mode!r}.')
        if keep < 1:
            raise InputError(f"config.best.keep is at least 1, got {keep}.")
        self._directory = directory
        self._metric, self._sign, self._keep = metric, 1 if mode == "max" else -1, keep
        self._known: dict[int, dict[str, float] | None] = {}  # by step, as far as read

    def metrics(self, step: int) -> dict[str, float] | None:
        """The scalars of a checkpoint; None if there are none, or they cannot be read."""
        if step not in self._known:
            try:
                stored = json.loads(self._path(step).read_text())
                self._known[step] = {str(key): float(value) for key, value in stored.items()}
            except (OSError, ValueError, AttributeError, TypeError):
                self._known[step] = None
        return self._known[step]

    def store(self, step: int, metrics: Mapping[str, float], *, write: bool) -> None:
        """Takes in the scalars of a checkpoint.

        Args:
            step: its step.
            metrics: name -> value.
            write: whether this process writes them.
        """
        if write:
            files.write_text(self._path(step), json.dumps(dict(metrics)))
        self._known[step] = dict(metrics)

    def forget(self, step: int) -> None:
        """Forgets what was read of a checkpoint that is written anew or is gone."""
        self._known.pop(step, None)

    def best(self, steps: Iterable[int]) -> int | None:
        """The best step, of equals the last; None without scores."""
        scores = {step: score for step in steps if (score := self._score(step)) is not None}
        return max(scores, key=lambda step: (scores[step], step), default=None)

    def kept(self, steps: Iterable[int]) -> set[int]:
        """The latest steps and the best."""
        best = self.best(steps)
        return {*sorted(steps)[-self._keep :], *([] if best is None else [best])}

    def _path(self, step: int) -> pathlib.Path:
        return self._directory / str(step) / "metrics" / "metrics"  # where orbax keeps them

    def _score(self, step: int) -> float | None:
        value = (self.metrics(step) or {}).get(self._metric)
        if value is None:
            return None
        return self._sign * value if np.isfinite(value) else -np.inf  # a nan would evict the best
