"""What a training run logs and shows."""

import pathlib

import jax
import numpy as np
from absl import logging

from segjax.errors import InputError
from segjax.evaluation import evaluator as evaluation
from segjax.evaluation import report
from segjax.pictures import charts, label_maps, layout
from segjax.runs import checkpoint, event_log, progress
from segjax.training import state


class Monitor:
    """Writes scalars, evaluates, draws, and says when to stop. All processes call it alike.

    Args:
        evaluator: scores the weights.
        data: fingerprint of what it evaluates.
        workdir: the run folder.
        step: the last step that is done.
    """

    def __init__(
        self, evaluator: evaluation.Evaluator, data: str, workdir: pathlib.Path, *, step: int
    ):
        self.evaluator, self.data, self.workdir = evaluator, data, workdir
        self.parts = evaluator.experiment
        self.main = jax.process_index() == 0
        self.tracker = event_log.Tracker(
            workdir, step=step, total_steps=self.parts.config.total_steps, enabled=self.main
        )
        self.meter = progress.Meter()
        past = [event for event in event_log.read_metrics(workdir) if event["step"] <= step]
        self._watched = [e[self._stop.metric] for e in past if self._stop.metric in e]
        self._undrawn: list[tuple[evaluation.Result, str, int, int]] = []
        self._last: dict[str, float] = {k: v for event in past for k, v in event.items()}

    @property
    def _stop(self):
        return self.parts.config.stop

    def step(self, step: int, scalars: dict[str, float]) -> None:
        """Takes the scalars of a training step; writes them when they are due."""
        self.meter.step(self.parts.config.batch_size)
        self.tracker.progress(step, f"loss {scalars['loss']:.4f}")
        if step % self.parts.config.every_steps.log == 0 or step == self.parts.config.total_steps:
            scalars = {f"train/{key}": value for key, value in scalars.items()}
            memory = progress.peak_memory(self.parts.mesh.local_devices)
            self._write(step, scalars | self.meter.read_and_reset() | memory)

    def evaluate(self, ts: state.TrainState, step: int) -> dict[str, float]:
        """Scores raw and averaged weights; returns the newest value of every scalar.

        Raises:
            InputError: if no scalar has the name that chooses the best, or stops the run.
        """
        kinds = {"eval": {"params": ts.params, "batch_stats": ts.batch_stats}}
        if ts.ema:
            kinds["eval_ema"] = ts.ema
        mark = int(checkpoint.fingerprint(ts))
        for kind, weights in kinds.items():
            result = self.evaluator(weights["params"], weights["batch_stats"])
            self._write(step, {f"{kind}/{key}": v for key, v in result.scalars().items()})
            self._undrawn.append((result, kind, step, mark))
        for key in (self._stop.metric, self.parts.config.best.metric):
            if key not in self._last:
                known = ", ".join(key for key in self._last if "/" in key)
                raise InputError(f"No scalar is called {key!r}; there are {known}.")
        self._watched.append(self._last[self._stop.metric])
        return {key: value for key, value in self._last.items() if "/" in key}

    def draw(self) -> None:
        """Shows the evaluations since the last call: tables, pictures, files. After the save."""
        while self._undrawn:
            evaluated = self._undrawn.pop(0)
            if self.main:
                self._show(*evaluated)

    def should_stop(self) -> bool:
        """Whether the watched scalar has not improved for `config.stop.patience` evaluations."""
        if not self._stop.patience:
            return False
        sign = 1 if self._stop.mode == "max" else -1
        values = sign * np.array(self._watched, float)
        since = len(values) - 1 - int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
        if since >= self._stop.patience:
            logging.info("%s has not improved for %d evaluations.", self._stop.metric, since)
        return since >= self._stop.patience

    def close(self) -> None:
        """Draws the curves of the whole run and closes the log."""
        if self.main:
            charts.curves(self.tracker.history(), self.workdir / "pictures" / "curves.png")
        self.tracker.close()

    def _write(self, step: int, scalars: dict[str, float]) -> None:
        self._last |= scalars
        self.tracker.write(step, scalars)

    def _show(self, result: evaluation.Result, kind: str, step: int, mark: int) -> None:
        spec, folder, how = self.parts.spec, self.workdir / "pictures", self.evaluator.how
        weights = "ema" if kind == "eval_ema" else "raw"
        report.write(
            report.path_of(self.workdir, how["split"], weights=weights),
            result,
            how,
            spec,
            step=step,
            weights=weights,
            data=self.data,
            checkpoint=mark,
            names=self.evaluator.names(result),
        )
        logging.info("Step %d, %s weights:\n%s", step, weights, report.table(result, spec))
        if result.panel:
            panel = label_maps.panel(result.panel, spec, **result.maps)
            layout.write_png(folder / f"{kind}-{step:07d}.png", panel)
            self.tracker.image(step, f"{kind}/panel", panel)
        title = f"{how['split']}, step {step}, {weights} weights"
        charts.class_chart(result.report.iou, spec, folder / f"{kind}-iou.png", title=title)
