"""Report of an evaluation: a table, and files of scores in the run folder."""

import dataclasses
import pathlib

import numpy as np

from segjax import files, metrics, tables
from segjax.data.spec import DatasetSpec
from segjax.evaluation.protocol import Protocol
from segjax.evaluation.result import Result, mark
from segjax.metrics.metric import ImageMetric, numbers, percent
from segjax.runs import run_folder


@dataclasses.dataclass(frozen=True)
class Origin:
    """Origin of the scores of an evaluation.

    Attributes:
        step: training step of the weights.
        weights: "raw" or "ema".
        data: fingerprint of the split.
        checkpoint: fingerprint of the whole train state.
    """

    step: int
    weights: str
    data: str
    checkpoint: int


def table(result: Result, spec: DatasetSpec) -> str:
    """The per-class scores and the means as text."""
    report = result.report
    rows = [
        (name, percent(report.iou[i]), percent(report.accuracy[i]), int(report.confusion[i].sum()))
        for i, name in enumerate(spec.classes)
    ]
    first: list[str] = []
    further: list[str] = []
    for metric in result.metrics:
        apart = isinstance(metric, ImageMetric) or metric.name not in metrics.METRICS
        (further if apart else first).append(result.descriptions[metric.name][0])
    if result.before is not None:
        scores = result.before.scalars().items()
        further.append(f"before the CRF: {', '.join(f'{k} {percent(v)}' for k, v in scores)}")
    means = ", ".join([*first, f"{result.examples} images"])
    text = tables.format_table(rows, ("class", "IoU %", "accuracy %", "pixels"))
    return "\n".join([text, means, *further])


def path_of(
    workdir: pathlib.Path,
    split: str,
    *,
    views: str = "",
    crf: str = "",
    weights: str = "raw",
    more: str = "",
) -> pathlib.Path:
    """Path of eval-<split>[-<views>][-<crf>][-ema][-<more>].json in a run folder.

    Args:
        workdir: run folder.
        split: data set split.
        views, crf: names of the views and the CRF if they differ from the run's; else "".
        weights: "raw" or "ema".
        more: a mark of any other difference.
    """
    parts = [split, *filter(None, [views, crf, weights if weights != "raw" else "", more])]
    return workdir / f"eval-{'-'.join(parts)}.json"


def write(
    path: pathlib.Path,
    result: Result,
    protocol: Protocol,
    origin: Origin,
    names: list[str],
) -> None:
    """Writes the scores as JSON, and per-image counts to an .npz file beside it.

    Args:
        path: path of the JSON file.
        result: result of the evaluation.
        protocol: protocol of the evaluation.
        origin: origin of the scores.
        names: image names, in the order of `result.index`.
    """
    fields = {
        "step": origin.step,
        "weights": origin.weights,
        "scores": numbers(result.scalars()),
        "examples": result.examples,
    }
    for metric in result.metrics:
        fields |= result.descriptions[metric.name][1]
    if result.before is not None:
        fields["before_crf"] = numbers(result.before.scalars())
    fields |= {
        "protocol": protocol.to_json(),
        "data": origin.data,
        "checkpoint": origin.checkpoint,
        "result": mark(names, result.marginals),
        "versions": run_folder.versions(),
    }
    arrays = {
        "confusion": result.report.confusion,
        "names": np.array(names),
        "index": result.index,
    }
    for name, kept in result.images.items():
        prefix = "" if name in metrics.METRICS else f"{name}."
        arrays |= {f"{prefix}{key}": value for key, value in kept.items()}
    files.write_json(path, fields)
    files.write_npz(path.with_suffix(".npz"), **arrays)
