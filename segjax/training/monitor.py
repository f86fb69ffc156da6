"""Logs, evaluations and pictures of a training run."""

import pathlib

import jax
import ml_collections
import numpy as np
from absl import logging

from segjax.evaluation import report
from segjax.evaluation.evaluator import Evaluator
from segjax.evaluation.result import Result
from segjax.network import Network
from segjax.pictures import charts, label_maps, layout
from segjax.runs import checkpoint, costs, event_log, progress
from segjax.training import state
from segjax.training.assembly import Training


class Monitor:
    """Logs scalars, evaluates, draws pictures and decides on early stopping.

    All processes make the same calls; only the first writes.

    Args:
        training: the training.
        evaluator: evaluator of the weights.
        data: fingerprint of the evaluated split.
        workdir: run folder.
        step: last completed step.
    """

    def __init__(
        self,
        training: Training,
        evaluator: Evaluator,
        data: str,
        workdir: pathlib.Path,
        *,
        step: int,
    ):
        self.training, self.evaluator = training, evaluator
        self.data, self.workdir = data, workdir
        self.main = jax.process_index() == 0
        self.log = event_log.EventLog(workdir, step=step, enabled=self.main)
        self.line = progress.ProgressLine("step", self.training.config.total_steps)
        self.meter = costs.Meter()
        past = [event for event in event_log.read(workdir) if event["step"] <= step]
        self._watched = [e[self._stop.metric] for e in past if self._stop.metric in e]
        self._undrawn: list[tuple[Result, str, int, int]] = []
        self._last: dict[str, float] = {k: v for event in past for k, v in event.items()}

    @property
    def _stop(self) -> ml_collections.ConfigDict:
        return self.training.config.stop

    def step(self, step: int, scalars: dict[str, float]) -> None:
        """Records the scalars of a training step; logs them every `every_steps.log` steps."""
        config = self.training.config
        self.meter.step(config.batch_size)
        if self.main:
            self.line.show(step, f"loss {scalars['loss']:.4f}")
        scalars = {f"train/{key}": value for key, value in scalars.items()}
        self._last |= scalars
        if step % config.every_steps.log == 0 or step == config.total_steps:
            memory = costs.peak_memory(self.training.mesh.local_devices)
            self._write(step, scalars | self.meter.read_and_reset() | memory)

    def evaluate(self, ts: state.TrainState, step: int) -> dict[str, float]:
        """Evaluates raw and averaged weights; returns the latest value of every scalar."""
        kinds = {"eval": {"params": ts.params, "batch_stats": ts.batch_stats}}
        if ts.ema:
            kinds["eval_ema"] = ts.ema
        mark = int(checkpoint.fingerprint(ts))
        for kind, weights in kinds.items():
            result = self.evaluator(Network(**weights, model=self.training.model))
            self._write(step, {f"{kind}/{key}": v for key, v in result.scalars().items()})
            self._undrawn.append((result, kind, step, mark))
        self._watched.append(self._last[self._stop.metric])
        return {key: value for key, value in self._last.items() if "/" in key}

    def draw(self) -> None:
        """Writes tables, pictures and files of new evaluations; call it after saving."""
        while self._undrawn:
            evaluated = self._undrawn.pop(0)
            if self.main:
                self._show(*evaluated)

    def should_stop(self) -> bool:
        """Whether the watched scalar has not improved for `config.stop.patience` evaluations."""
        patience: int = self._stop.patience
        if not patience:
            return False
        sign = 1 if self._stop.mode == "max" else -1
        values = sign * np.array(self._watched, float)
        since = len(values) - 1 - int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
        if since >= patience:
            logging.info("%s has not improved for %d evaluations.", self._stop.metric, since)
        return since >= patience

    def close(self) -> None:
        """Draws the curves of the whole run and closes the log."""
        if self.main:
            charts.curves(event_log.read(self.workdir), self.workdir / "pictures" / "curves.png")
            self.line.close()
        self.log.close()

    def _write(self, step: int, scalars: dict[str, float]) -> None:
        self._last |= scalars
        self.log.write(step, scalars)

    def _show(self, result: Result, kind: str, step: int, mark: int) -> None:
        spec, folder = self.training.model.spec, self.workdir / "pictures"
        split = self.evaluator.protocol.split
        weights = "ema" if kind == "eval_ema" else "raw"
        report.write(
            report.path_of(self.workdir, split, weights=weights),
            result,
            self.evaluator.protocol,
            report.Origin(step, weights, self.data, mark),
            self.evaluator.names(result),
        )
        logging.info("Step %d, %s weights:\n%s", step, weights, report.table(result, spec))
        if result.panel:
            panel = label_maps.panel(
                result.panel,
                spec,
                before=result.maps.get("before", ()),
                uncertainty=result.maps.get("uncertainty", ()),
            )
            layout.write_png(folder / f"{kind}-{step:07d}.png", panel)
            self.log.image(step, f"{kind}/panel", panel)
        title = f"{split}, step {step}, {weights} weights"
        charts.class_chart(result.report.iou, spec, folder / f"{kind}-iou.png", title=title)
