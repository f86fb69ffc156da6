"""Scoring a network on a split, every example exactly once, and what is kept of it."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from segjax import state, tracking
from segjax.data import pipeline
from segjax.data.sources import Source
from segjax.data.spec import DatasetSpec
from segjax.errors import InputError
from segjax.experiment import Experiment, versions
from segjax.metrics import confusion

Example = tuple[np.ndarray, np.ndarray, np.ndarray]
"""image uint8 [H, W, 3], truth uint8 [H, W], prediction uint8 [H, W]."""


@dataclasses.dataclass(frozen=True)
class Result:
    """An evaluation.

    Attributes:
        report: the scores, with their confusion matrix.
        loss: cross-entropy per labelled pixel, in nats; class weights included.
        examples: how many images were seen.
        panel: some of them, with their predictions.
    """

    report: confusion.Report
    loss: float
    examples: int
    panel: list[Example]

    def scalars(self) -> dict[str, float]:
        """For logs: loss, miou, pixel_accuracy, mean_accuracy, fwiou."""
        return {"loss": self.loss} | self.report.scalars()


def protocol(experiment: Experiment, split: str, sizes: np.ndarray) -> dict[str, Any]:
    """How a number is made, as plain data; stored beside it, and obeyed by `predict`.

    Args:
        experiment: the run.
        split: name of the split.
        sizes: int32 [N, 2], of its images.

    Raises:
        InputError: if images shall be filled up that the network sees at one fixed size.
    """
    config = experiment.config
    bucket = config.eval.bucket
    if any(config.input_size):
        # What fills an image up would be squeezed into that size with it.
        if bucket > 1:
            raise InputError(
                f"config.eval.bucket is {bucket}; with config.input_size it is 0 or 1."
            )
        bucket = 1
    return {
        "split": split,
        "limit": config.eval.limit,
        "batch_size": config.eval.batch_size,
        "bucket": pipeline.resolve_bucket(bucket, sizes),
        "fill": list(config.preprocess.mean),
        "input_scale": config.input_scale,
        "input_size": list(config.input_size),
        "resize": "scores, bilinear with half-pixel centres, to the label's size, before argmax",
    }


def evaluate(
    experiment: Experiment,
    params: Any,
    batch_stats: Any,
    source: Source,
    sizes: np.ndarray,
    how: dict[str, Any],
    *,
    progress: Callable[[int], None] = lambda done: None,
    observe: Callable[[np.ndarray, np.ndarray, np.ndarray], None] | None = None,
) -> Result:
    """Scores the weights on a split under the protocol `how`.

    Counts are added up in int64 and float64 on the host; the device never divides.

    Args:
        experiment: the run's parts.
        params, batch_stats: the weights.
        source: the split.
        sizes: int32 [N, 2], of its images.
        how: of `protocol`.
        progress: called with the number of batches done.
        observe: called with every `Example` of this process.
    """
    classes = experiment.spec.num_classes
    counts, loss, pixels = np.zeros((classes, classes), np.int64), 0.0, 0.0
    plan = plan_of(how, sizes)
    wanted = _panel_indices(plan, experiment.config.eval.pictures)
    panel: dict[int, Example] = {}

    for done, (batch, out) in enumerate(run(experiment, params, batch_stats, source, how, plan)):
        counts += np.asarray(out["confusion"], np.int64)
        loss += float(out["loss"])
        pixels += float(out["pixels"])
        _collect(panel, wanted, batch, out["prediction"])
        if observe is not None:
            for example in _examples(batch, out["prediction"]).values():
                observe(*example)
        progress(done + 1)
    return Result(
        report=confusion.report(counts),
        loss=loss / pixels if pixels else float("nan"),
        examples=sum(int((rows >= 0).sum()) for _, rows in plan),
        panel=[panel[index] for index in sorted(panel)],
    )


def plan_of(how: dict[str, Any], sizes: np.ndarray) -> list:
    """The batches of a protocol: see `pipeline.eval_plan`."""
    return pipeline.eval_plan(
        sizes, batch_size=how["batch_size"], bucket=how["bucket"], limit=how["limit"]
    )


def run(experiment: Experiment, params: Any, batch_stats: Any, source: Source, how: dict, plan):
    """Yields (this process's rows as numpy, the step's results), one batch late.

    The device works on a batch while the host adds up the one before.
    """
    loader = experiment.config.loader
    batches = pipeline.eval_batches(
        source,
        plan,
        fill=how["fill"],
        process=jax.process_index(),
        processes=jax.process_count(),
        threads=loader.threads,
        prefetch=loader.prefetch,
    )
    late = None
    for batch in batches:
        out = experiment.eval_step(params, batch_stats, state.put_batch(experiment.mesh, batch))
        if late is not None:
            yield late
        late = batch, out
    if late is not None:
        yield late


def _panel_indices(plan, pictures: int) -> set[int]:
    """Examples for the panel, spread over what this process sees."""
    processes, process = jax.process_count(), jax.process_index()
    mine = [i for _, rows in plan for i in np.split(rows, processes)[process] if i >= 0]
    if not mine or not pictures:
        return set()
    mine.sort()
    return {int(mine[i]) for i in np.linspace(0, len(mine) - 1, pictures).round().astype(int)}


def _collect(panel: dict[int, Example], wanted: set[int], batch: dict, prediction) -> None:
    if wanted & {int(index) for index in batch["index"][batch["weight"] > 0]}:
        found = _examples(batch, prediction)
        panel.update({index: found[index] for index in wanted & found.keys()})


def _examples(batch: dict, prediction: jax.Array) -> dict[int, Example]:
    """Item of the data set -> example, of this process's rows that are no fill."""
    predicted = state.local_rows(prediction)
    found = {}
    for row in np.flatnonzero(batch["weight"]):
        height, width = batch["size"][row]
        found[int(batch["index"][row])] = (
            batch["image"][row, :height, :width],
            batch["label"][row, :height, :width],
            predicted[row, :height, :width],
        )
    return found


def table(result: Result, spec: DatasetSpec) -> str:
    """The per-class table and the means, for people."""
    report = result.report

    def percent(value: float) -> str:
        return "absent" if np.isnan(value) else f"{100 * value:.2f}"

    rows = [
        (name, percent(report.iou[i]), percent(report.accuracy[i]), int(report.confusion[i].sum()))
        for i, name in enumerate(spec.classes)
    ]
    means = (
        f"mIoU {percent(report.miou)} over {report.classes_counted} classes, "
        f"pixel accuracy {percent(report.pixel_accuracy)}, "
        f"mean accuracy {percent(report.mean_accuracy)}, "
        f"frequency-weighted IoU {percent(report.fwiou)}, "
        f"loss {result.loss:.4f}, {result.examples} images"
    )
    return tracking.format_table(rows, ("class", "IoU %", "accuracy %", "pixels")) + "\n" + means


def write(
    workdir: pathlib.Path, result: Result, how: dict, spec: DatasetSpec, *, step: int, weights: str
) -> pathlib.Path:
    """Writes eval-<split>[-ema].json and its confusion matrix as .npz into the run folder.

    Args:
        workdir: the run folder.
        result, how: the evaluation and its protocol.
        spec: of the data set.
        step: of the weights.
        weights: "raw" or "ema".
    """
    report = result.report
    suffix = "" if weights == "raw" else f"-{weights}"
    path = workdir / f"eval-{how['split']}{suffix}.json"
    fields = {
        "step": step,
        "weights": weights,
        "scores": {k: None if np.isnan(v) else v for k, v in result.scalars().items()},
        "classes_counted": report.classes_counted,
        "examples": result.examples,
        "iou": _by_name(report.iou, spec),
        "accuracy": _by_name(report.accuracy, spec),
        "protocol": how,
        "versions": versions(),
    }
    try:
        path.write_text(json.dumps(fields, indent=2, allow_nan=False) + "\n")
        np.savez_compressed(path.with_suffix(".npz"), confusion=report.confusion)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def _by_name(values: np.ndarray, spec: DatasetSpec) -> dict[str, float | str]:
    return {
        name: "absent" if np.isnan(value) else float(value)
        for name, value in zip(spec.classes, values, strict=True)
    }
