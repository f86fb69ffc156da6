"""The report of an evaluation: its table, and the files of scores in a run folder."""

import dataclasses
import pathlib

import numpy as np

from segjax import files, metrics, tables
from segjax.data.spec import DatasetSpec
from segjax.evaluation.protocol import Protocol
from segjax.evaluation.result import Result
from segjax.metrics.metric import ImageMetric, numbers, percent
from segjax.runs import run_folder


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the numbers of an evaluation come from.

    Attributes:
        step: of the weights.
        weights: "raw" or "ema".
        data: fingerprint of the split.
        checkpoint: fingerprint of the whole train state.
    """

    step: int
    weights: str
    data: str
    checkpoint: int


def table(result: Result, spec: DatasetSpec) -> str:
    """The per-class table and the means, for people."""
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
    """eval-<split>[-<views>][-<crf>][-ema][-<more>].json of a run folder.

    `views` and `crf` name those that are not the run's own; `more`, what else differs.
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
    """Writes the scores, and beside them as .npz what every image adds to them.

    Args:
        path: of the JSON file.
        result, protocol: the evaluation, and how it was made.
        origin: of the numbers.
        names: of the images, in the order of `result.index`.
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
