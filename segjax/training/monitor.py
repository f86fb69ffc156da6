"""Logs, evaluations and pictures of a training run."""

import pathlib
from collections.abc import Callable

import jax
from absl import logging

from segjax.compilers import chips
from segjax.evaluation import report
from segjax.evaluation.evaluator import Evaluator
from segjax.evaluation.result import Result
from segjax.network import Network
from segjax.pictures import charts, label_maps, layout
from segjax.runs import checkpoint, closing, costs, event_log, progress
from segjax.training import state, stopping
from segjax.training.assembly import Training


class _Interrupted(Exception):
    """An evaluation was broken off between two batches."""


def _peak(training: Training) -> float | None:
    """The operations that all devices can do in a second; None if they are not known."""
    chip = chips.of_device(training.mesh.devices.flat[0])
    return chip.rates[training.config.dtype] * training.mesh.size if chip else None


class Monitor(closing.Closing):
    """Logs scalars, evaluates, draws pictures and decides on early stopping.

    All processes make the same calls; only the first writes.

    Args:
        training: the training.
        evaluator: evaluator of the weights.
        data: fingerprint of the evaluated split.
        workdir: run folder.
        operations: floating-point operations of a step, see `compilers.operations`.
        step: last completed step. Its evaluation counts as logged if the log holds all of it; else
            what there is of it is dropped.
    """

    def __init__(
        self,
        training: Training,
        evaluator: Evaluator,
        data: str,
        workdir: pathlib.Path,
        *,
        operations: float,
        step: int,
    ):
        self.training, self.evaluator = training, evaluator
        self.data, self.workdir = data, workdir
        self.main = jax.process_index() == 0
        kinds = ("eval/", "eval_ema/") if training.config.ema_decay > 0 else ("eval/",)
        past = [event for event in event_log.read(workdir) if 0 < event["step"] <= step]
        now = [event for event in past if event["step"] == step]
        logged = all(any(stopping.is_evaluation(event, kind) for event in now) for kind in kinds)

        def kept(event: dict) -> bool:
            return logged or event["step"] < step or not stopping.is_evaluation(event)

        self._watched = stopping.Watched(training.config.stop.metric)
        self._step, self._scalars = 0, dict[str, float]()  # of the last step in the log
        for event in filter(kept, past):
            self._follow(event["step"], event)
        self._logged = logged  # the evaluation of that step
        self.log = event_log.EventLog(workdir, step=step, enabled=self.main, keep=kept)
        self.line = progress.ProgressLine("step", self.training.config.total_steps)
        self.meter = costs.Meter(operations=operations, peak=_peak(training))
        self._curves_are_new = False

    def step(self, step: int, scalars: dict[str, float]) -> None:
        """Records the scalars of a training step.

        Logs them every `every_steps.log` steps, and where the run evaluates, so that what is
        decided there can be read from the log.
        """
        config = self.training.config
        self.meter.step(config.batch_size)
        if self.main:
            self.line.show(step, f"loss {scalars['loss']:.4f}")
        if step % config.every_steps.log == 0 or stopping.due(config, step):
            scalars = {f"train/{key}": value for key, value in scalars.items()}
            memory = costs.peak_memory(self.training.mesh.local_devices)
            self._write(step, scalars | self.meter.read_and_reset() | memory)

    def evaluate(
        self, ts: state.TrainState, step: int, interrupted: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """Evaluates raw and averaged weights; writes tables, pictures and files.

        Scores that the log holds already are not written to it again.

        Args:
            ts: the state.
            step: its step.
            interrupted: asked between batches whether to break off.

        Returns:
            All scalars of the step; None if the evaluation was broken off, having written nothing.
        """
        kinds = {"eval": {"params": ts.params, "batch_stats": ts.batch_stats}}
        if ts.ema:
            kinds["eval_ema"] = ts.ema
        mark = int(checkpoint.fingerprint(ts))

        def look_up(_done: int) -> None:
            if interrupted():
                raise _Interrupted

        try:
            results = {
                kind: self.evaluator(
                    Network(**weights, model=self.training.model), progress=look_up
                )
                for kind, weights in kinds.items()
            }
        except _Interrupted:
            return None
        if not (self._logged and step == self._step):
            for kind, result in results.items():
                self._write(step, {f"{kind}/{key}": v for key, v in result.scalars().items()})
        if self.main:
            for kind, result in results.items():
                self._show(result, kind, step, mark)
        if step == self.training.config.total_steps or self.stopped() is not None:
            self._draw_curves()
        return dict(self._scalars)

    def stopped(self) -> str | None:
        """Why the run ends early after its last evaluation; None if it goes on."""
        return self._watched.stopped(self.training.config.stop)

    def close(self) -> None:
        """Draws the curves of the whole run and closes the log."""
        if not self._curves_are_new:
            self._draw_curves()
        if self.main:
            self.line.close()
        self.log.close()

    def _draw_curves(self) -> None:
        if self.main:
            charts.curves(event_log.read(self.workdir), self.workdir / "pictures" / "curves.png")
        self._curves_are_new = True

    def _write(self, step: int, scalars: dict[str, float]) -> None:
        self._follow(step, scalars)
        self.log.write(step, scalars)
        self._curves_are_new = False

    def _follow(self, step: int, scalars: dict[str, float]) -> None:
        """Takes in an event, written now or by the run before."""
        if step != self._step:
            self._step, self._scalars, self._logged = step, {}, False
        self._scalars |= {key: value for key, value in scalars.items() if "/" in key}
        self._watched.add(scalars | {"step": step})

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
