"""Evaluation of a classical method on a data set: scores, rows and pictures in a run folder.

Images of one size share a compiled program and are batched over the devices. The host computes
scores while the devices work on the next batch.
"""

import concurrent.futures
import dataclasses
import pathlib
import time
from collections.abc import Iterator, Sequence

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from segjax import classical, files, sharding, tables
from segjax.classical import batches as method_batches
from segjax.configuration import keys
from segjax.data import annotations, catalog
from segjax.errors import InputError
from segjax.metrics import partitions, region_boundaries
from segjax.pictures import layout, region_maps
from segjax.runs import event_log, lock, progress, run_folder

_TARGET_SHARE = (0.05, 0.4)  # area of a target for a box, as a share of the image


@dataclasses.dataclass(frozen=True)
class Task:
    """An image for a method, with its human segmentations.

    Attributes:
        index: data set index.
        image: uint8 [H, W, 3].
        humans: int32 [A, H, W]; with a box, one map that is 1 on the target.
        box: int32 [4], (top, left, bottom, right) of the target; None for methods without a box.
    """

    index: int
    image: np.ndarray
    humans: np.ndarray
    box: np.ndarray | None = None

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The method's arguments."""
        return (self.image,) if self.box is None else (self.image, self.box)


Labelled = tuple[list[Task], list[np.ndarray]]
"""Tasks of one size, and the labels int32 [H, W] of each task."""


@dataclasses.dataclass(frozen=True)
class _Shown:
    """A task for the picture, with its labels and scores."""

    name: str
    task: Task
    labels: np.ndarray
    scores: dict


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Runs `config.method` on a split and writes scores and pictures to the run folder.

    Raises:
        InputError: if options or data are not allowed, or the folder belongs to another config.
    """
    if jax.process_count() > 1:
        raise InputError("A classical method runs in one process, on all its devices.")
    keys.check(config)
    method = classical.build(**config.method)
    lock.refuse_if_held(workdir)
    run_folder.check(workdir, config)
    source = catalog.load_regions(**config.data).splits[config.eval.split]
    mesh = sharding.make_mesh(1)
    chosen = _spread(len(source), config.eval.limit or len(source))
    measures = annotations.sizes(source, chosen)
    with lock.held(workdir):
        run_folder.check(workdir, config)  # another run may have been here meanwhile
        _run(config, workdir, method, source, chosen, measures, mesh)


def _run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    method: classical.Method,
    source: annotations.RegionSource,
    chosen: Sequence[int],
    measures: np.ndarray,
    mesh: Mesh,
) -> None:
    run_folder.claim(workdir, config)
    tasks = _tasks(annotations.batches(source, chosen, measures, 1), classical.takes_box(method))
    pictured = {chosen[place] for place in _spread(len(chosen), config.eval.pictures)}
    rows: list[dict] = []
    shown: dict[int, _Shown] = {}
    line = progress.ProgressLine("image", len(chosen))
    clock = _Clock()
    labelled = outputs(method, tasks, mesh, config.eval.batch_size)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for group, labels in clock.watch(labelled):
            scored = list(pool.map(_score, group, labels))
            for task, label, scores in zip(group, labels, scored, strict=True):
                name = source.name(task.index)
                rows.append({"name": name} | scores)
                if task.index in pictured:
                    shown[task.index] = _Shown(name, task, label, scores)
            line.show(len({row["name"] for row in rows}), _each(clock.ms_per_row()))
    line.close()
    if not rows:
        raise InputError(f"{config.data.name}/{config.eval.split} has no target for a box.")
    _write(config, workdir, rows, summary(rows), clock.ms_per_row())
    if shown:
        picture = _panel([shown[index] for index in sorted(shown)])
        layout.write_png(workdir / "pictures" / f"{config.eval.split}.png", picture)


class _Clock:
    """Time spent waiting for the devices; excludes the first batch of each size, which compiles."""

    def __init__(self) -> None:
        self._seconds, self._rows = 0.0, 0
        self._seen: set[tuple[int, ...]] = set()  # sizes

    def watch(self, batches: Iterator[Labelled]) -> Iterator[Labelled]:
        """Yields the batches and measures the time of each."""
        while True:
            start = time.perf_counter()
            try:
                tasks, labels = next(batches)
            except StopIteration:
                return
            if labels[0].shape in self._seen:
                self._seconds += time.perf_counter() - start
                self._rows += len(tasks)
            self._seen.add(labels[0].shape)
            yield tasks, labels

    def ms_per_row(self) -> float:
        """Milliseconds per row; nan before the second batch of a size."""
        return 1e3 * self._seconds / self._rows if self._rows else float("nan")


def outputs(
    method: classical.Method, tasks: Iterator[Task], mesh: Mesh, batch_size: int
) -> Iterator[Labelled]:
    """Yields up to `batch_size` tasks of one size, and their labels.

    Args:
        method: result of `classical.build`.
        tasks: the tasks; their order is kept.
        mesh: devices; rows are split over them.
        batch_size: tasks at once; a batch that is short, or does not divide over the devices, is
            padded with its last task.
    """
    program = method_batches.over_batch(method, mesh)
    size = sharding.rounded_up(batch_size, mesh)
    for group in _grouped(tasks, batch_size):
        filled = group + [group[-1]] * (size - len(group))
        rows = [task.arrays() for task in filled]
        arrays = [np.stack(parts) for parts in zip(*rows, strict=True)]
        labels = np.asarray(program(*arrays))
        yield group, list(labels[: len(group)])


def _tasks(batches: Iterator[annotations.Batch], boxed: bool) -> Iterator[Task]:
    """One task per image; with `boxed`, one task per target."""
    for batch in batches:
        index, image = int(batch["index"][0]), batch["image"][0]
        humans = batch["segmentations"][0, : batch["annotators"][0]]
        if boxed:
            yield from targets(index, image, humans)
        else:
            yield Task(index, image, humans)


def targets(index: int, image: np.ndarray, humans: np.ndarray) -> Iterator[Task]:
    """Tasks for the human segments that cover 5 to 40 % of the image, with bounding boxes."""
    for human in humans:
        count = np.bincount(human[human >= 0], minlength=1)
        low, high = (share * human.size for share in _TARGET_SHARE)
        for segment in np.flatnonzero((count >= low) & (count <= high)):
            mask = human == segment
            ys, xs = np.nonzero(mask)
            box = np.array([ys.min(), xs.min(), ys.max() + 1, xs.max() + 1], np.int32)
            yield Task(index, image, np.where(human < 0, -1, mask)[None].astype(np.int32), box)


def _grouped(tasks: Iterator[Task], batch_size: int) -> Iterator[list[Task]]:
    """Lists of up to `batch_size` tasks of one size, in order."""
    held: list[Task] = []
    for task in tasks:
        if held and (len(held) == batch_size or held[0].image.shape != task.image.shape):
            yield held
            held = []
        held.append(task)
    if held:
        yield held


def _score(task: Task, labels: np.ndarray) -> dict:
    if task.box is not None:
        target, cutout = task.humans[0] == 1, (labels > 0) & (task.humans[0] >= 0)
        return {"iou": float((target & cutout).sum() / (target | cutout).sum())}
    humans = [*task.humans]
    scores = partitions.partition_scores(labels, humans)
    scores |= partitions.superpixel_scores(task.image, labels, humans)
    counts = region_boundaries.f_counts(labels, humans)
    return scores | {f"f_{key}": count for key, count in counts.items()}


def summary(rows: Sequence[dict]) -> dict[str, float]:
    """Means over rows; boundary precision, recall and F from counts summed over rows."""
    keys = [key for key in rows[0] if key != "name" and not key.startswith("f_")]
    values = {key: np.array([row[key] for row in rows], float) for key in keys}
    # A score without values, such as recall where no human drew a boundary, stays nan.
    means = {
        key: float(np.nanmean(v)) if not np.isnan(v).all() else float("nan")
        for key, v in values.items()
    }
    if "f_drawn" in rows[0]:
        counts = {
            k: sum(row[f"f_{k}"] for row in rows) for k in ("right", "drawn", "found", "true")
        }
        means |= {
            f"boundary_{key}": value for key, value in region_boundaries.f_measure(counts).items()
        }
    return means


def _write(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    rows: Sequence[dict],
    means: dict[str, float],
    ms: float,
) -> None:
    """Writes eval-<split>.json and an .npz of the rows; prints the means."""
    split = config.eval.split
    known = {key: None if np.isnan(value) else value for key, value in means.items()}
    fields = {
        "scores": known,
        "rows": len(rows),
        "ms_per_row": None if np.isnan(ms) else ms,
        "method": dict(config.method),
        "protocol": {
            "data": dict(config.data),
            "split": split,
            "limit": config.eval.limit,
            "batch_size": config.eval.batch_size,
            "means": "over an image's humans, then over rows; boundary_*: counts of all rows",
        },
        "versions": run_folder.versions(),
    }
    path = workdir / f"eval-{split}.json"
    files.write_json(path, fields)
    table = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    files.write_npz(path.with_suffix(".npz"), **table)
    with event_log.EventLog(workdir, step=0) as log:
        log.write(0, {f"eval/{key}": value for key, value in means.items()})
    cells = [(key, "absent" if np.isnan(value) else f"{value:.4f}") for key, value in means.items()]
    print(tables.format_table(cells, ("score", f"{config.data.name}/{split}")))
    print(f"{len(rows)} rows{_each(ms, ', ')}. Written: {path}")


def _each(ms: float, before: str = "") -> str:
    """The time of an image as text, "" while there is only the first, which is not counted."""
    return "" if np.isnan(ms) else f"{before}{ms:.1f} ms each"


def _panel(shown: Sequence[_Shown]) -> np.ndarray:
    """Picture of some tasks, all with a box or all without: uint8 [H, W, 3]."""
    cutouts, drawn = [], []
    for one in shown:
        task, scores = one.task, one.scores
        if task.box is not None:
            text = f"{one.name}: IoU {scores['iou']:.3f}"
            cutouts.append((text, task.image, one.labels, task.humans[0] == 1, task.box))
        else:
            keys = ("covering", "vi", "rec2", "ev")
            values = ", ".join(f"{key} {scores[key]:.3f}" for key in keys)
            text = f"{one.name}: {scores['regions']} regions, {values}"
            drawn.append((text, task.image, one.labels, task.humans[0]))
    if cutouts:
        return region_maps.cutout_panel(cutouts)
    return region_maps.partition_panel(drawn)


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` evenly spread indices below `count`."""
    places = np.linspace(0, count - 1, min(most, count)).round()
    return [int(place) for place in places]
