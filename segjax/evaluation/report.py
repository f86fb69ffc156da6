"""What is kept of an evaluation: the table, the file of scores, label maps, the worst images."""

import contextlib
import heapq
import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from segjax import tables
from segjax.data import png
from segjax.data.spec import DatasetSpec
from segjax.errors import InputError
from segjax.evaluation.evaluator import Example, Result
from segjax.metrics import bootstrap, class_boundaries, confusion
from segjax.pictures import label_maps
from segjax.runs.run_folder import versions

WORST = 20
"""Images that are drawn."""


class Worst:
    """Keeps the images of the least mIoU, as pictures.

    Args:
        keep: how many.
    """

    def __init__(self, keep: int = WORST):
        self._keep = keep
        self._heap: list[tuple[float, int, Example]] = []

    def add(self, index: int, example: Example, marginals: np.ndarray) -> None:
        """One image: its item of the data set and int [3, K]; nothing labelled is no score."""
        score = float(confusion.miou(marginals))
        if not np.isnan(score):
            push = heapq.heappush if len(self._heap) < self._keep else heapq.heappushpop
            push(self._heap, (-score, -index, example))

    def draw(self, spec: DatasetSpec, names) -> np.ndarray | None:
        """uint8 [H, W, 3], the worst first; None if there is none. `names`: item -> its name."""
        found = sorted(self._heap, reverse=True)
        captions = [f"{names(-index)}: mIoU {-100 * score:.1f}" for score, index, _ in found]
        rows = [example for _, _, example in found]
        return label_maps.panel(rows, spec, captions=captions) if rows else None


class Labels:
    """Writes label maps as PNGs with palettes into a zip, `<name>.png` each.

    Args:
        path: of the zip; it is there when `close` was called.
        spec: of the data set.

    Raises:
        InputError: if the disk refuses, then or later.
    """

    def __init__(self, path: pathlib.Path, spec: DatasetSpec):
        self._path, self._partial = path, path.with_suffix(".tmp")
        self._palette = [*spec.palette]
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._zip = zipfile.ZipFile(self._partial, "w")  # PNGs are compressed already

    def add(self, name: str, prediction: np.ndarray) -> None:
        """One map, uint8 [H, W]."""
        with self._writing():
            self._zip.writestr(f"{name}.png", png.encode_indices(prediction, self._palette))

    def close(self) -> None:
        """Puts the zip in its place."""
        with self._writing():
            self._zip.close()
            self._partial.replace(self._path)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"{self._path} cannot be written: {error.strerror}.") from error


def table(result: Result, spec: DatasetSpec) -> str:
    """The per-class table and the means, for people."""
    report = result.report
    rows = [
        (name, percent(report.iou[i]), percent(report.accuracy[i]), int(report.confusion[i].sum()))
        for i, name in enumerate(spec.classes)
    ]
    interval = result.interval
    means = (
        f"mIoU {percent(report.miou)} ({percent(interval.low)} to {percent(interval.high)}) over "
        f"{report.classes_counted} classes, "
        f"pixel accuracy {percent(report.pixel_accuracy)}, "
        f"mean accuracy {percent(report.mean_accuracy)}, "
        f"frequency-weighted IoU {percent(report.fwiou)}, "
        f"calibration error {percent(result.ece)}, "
        f"loss {result.loss:.4f}, {result.examples} images"
    )
    if "contour" in result.images:
        bands = class_boundaries.band_scores(result.images["bands"])
        near = ", ".join(f"{percent(s['pixel_accuracy'])} at {w}" for w, s in bands.items())
        means += (
            f"\nboundary F1 {percent(class_boundaries.boundary_f1(result.images['contour'])[0])}, "
            f"Boundary IoU {percent(class_boundaries.boundary_iou(result.images['rim'])[0])}; "
            f"pixel accuracy within pixels of a boundary: {near}"
        )
    if result.before is not None:
        network = ", ".join(
            f"{key} {percent(value)}" for key, value in result.before.scalars().items()
        )
        means += f"\nbefore the CRF: {network}"
    return tables.format_table(rows, ("class", "IoU %", "accuracy %", "pixels")) + "\n" + means


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

    `views` and `crf` name a protocol and a CRF that are not the run's own; `more`, what else.
    """
    parts = [split, *filter(None, [views, crf, weights if weights != "raw" else "", more])]
    return workdir / f"eval-{'-'.join(parts)}.json"


def write(
    path: pathlib.Path,
    result: Result,
    how: dict[str, Any],
    spec: DatasetSpec,
    *,
    step: int,
    weights: str,
    data: str,
    checkpoint: int,
    names: list[str],
) -> None:
    """Writes the scores, and beside them as .npz what every image adds to them.

    Args:
        path: of the JSON file.
        result, how: the evaluation and its protocol.
        spec: of the data set.
        step: of the weights.
        weights: "raw" or "ema".
        data: the split's fingerprint.
        checkpoint: the fingerprint of the whole train state.
        names: of the images, in the order of `result.images`.
    """
    report = result.report
    interval = result.interval
    fields = {
        "step": step,
        "weights": weights,
        "scores": _numbers(result.scalars()),
        "miou_interval": {
            "level": bootstrap.LEVEL,
            "draws": bootstrap.DRAWS,
            "low": number(interval.low),
            "high": number(interval.high),
        },
        "classes_counted": report.classes_counted,
        "examples": result.examples,
        "iou": by_name(report.iou, spec),
        "accuracy": by_name(report.accuracy, spec),
        **_details(result, spec),
        **({} if result.before is None else {"before_crf": _numbers(result.before.scalars())}),
        "protocol": how,
        "data": data,
        "checkpoint": checkpoint,
        "versions": versions(),
    }
    arrays = {"confusion": report.confusion, "names": np.array(names), **result.images}
    try:
        path.write_text(json.dumps(fields, indent=2, allow_nan=False) + "\n")
        np.savez_compressed(path.with_suffix(".npz"), **arrays)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error


def _details(result: Result, spec: DatasetSpec) -> dict[str, Any]:
    if "contour" not in result.images:
        return {}
    f1, f1_by_class = class_boundaries.boundary_f1(result.images["contour"])
    rim, rim_by_class = class_boundaries.boundary_iou(result.images["rim"])
    bands = class_boundaries.band_scores(result.images["bands"])
    return {
        "boundary_f1": {
            "tolerance": class_boundaries.TOLERANCE,
            "mean": number(f1),
            "by_class": by_name(f1_by_class, spec),
        },
        "boundary_iou": {
            "width": class_boundaries.RIM,
            "mean": number(rim),
            "by_class": by_name(rim_by_class, spec),
        },
        "bands": {str(width): _numbers(scores) for width, scores in bands.items()},
    }


def new_labels(path: pathlib.Path, spec: DatasetSpec) -> Labels:
    """The label maps of this process beside a file of scores; those of before are gone."""
    part = f"-{jax.process_index()}" if jax.process_count() > 1 else ""
    if jax.process_index() == 0:
        for old in labels_of(path):
            old.unlink(missing_ok=True)
    return Labels(path.with_name(f"{path.stem}-labels{part}.zip"), spec)


def labels_of(path: pathlib.Path) -> list[pathlib.Path]:
    """The zips of label maps beside a file of scores, one of each process."""
    return sorted(path.parent.glob(f"{path.stem}-labels*.zip"))


def percent(value: float) -> str:
    """With two decimals; "absent" for nan."""
    return "absent" if np.isnan(value) else f"{100 * value:.2f}"


def number(value: float) -> float | None:
    """For JSON, which has no nan."""
    return None if np.isnan(value) else float(value)


def by_name(values: np.ndarray, spec: DatasetSpec) -> dict[str, float | str]:
    """Class name -> its value, "absent" for nan."""
    return {
        name: "absent" if np.isnan(value) else float(value)
        for name, value in zip(spec.classes, values, strict=True)
    }


def _numbers(values: dict[str, float]) -> dict[str, float | None]:
    return {key: number(value) for key, value in values.items()}
