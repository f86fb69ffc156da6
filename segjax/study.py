"""A classical method over a data set: scores and pictures; and over photographs.

Images of one size go together through one program, a batch spread over the devices; scores are
counted while the devices work on the next batch.
"""

import concurrent.futures
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from segjax import classical, files, sharding, tables
from segjax.data import annotations, catalog, png
from segjax.errors import InputError
from segjax.metrics import partitions, region_boundaries
from segjax.pictures import layout, region_maps
from segjax.runs import event_log, progress, run_folder

_TARGET_SHARE = (0.05, 0.4)  # of an image that a segment has to be a target for a box


@dataclasses.dataclass(frozen=True)
class Task:
    """What a method is given, and what people made of it.

    Attributes:
        index: item of the data set.
        image: uint8 [H, W, 3].
        humans: int32 [A, H, W]; for a box, one map: 1 on the target.
        box: int32 [4], of the target, or None.
    """

    index: int
    image: np.ndarray
    humans: np.ndarray
    box: np.ndarray | None = None

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The method's arguments."""
        return (self.image,) if self.box is None else (self.image, self.box)


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Runs `config.method` over a split; writes scores and pictures into the run folder.

    Raises:
        InputError: on bad options or data, or a folder of another config.
    """
    if jax.process_count() > 1:
        raise InputError("A classical method runs in one process, on all the devices it has.")
    method = classical.build(**config.method)
    run_folder.check_workdir(workdir, config)
    source = catalog.load_regions(**config.data).splits[config.eval.split]
    chosen = np.arange(len(source))
    if 0 < config.eval.limit < len(source):
        chosen = np.linspace(0, len(source) - 1, config.eval.limit).round().astype(int)
    measures = annotations.sizes(source, chosen)
    boxed = classical.takes_box(method)
    mesh = sharding.make_mesh(1)
    tasks = _tasks(annotations.batches(source, chosen, measures, 1), boxed)
    batches = _grouped(tasks, config.eval.batch_size)
    wanted = {int(i) for i in chosen[_spread(len(chosen), config.eval.pictures)]}
    panel: dict[int, tuple[Task, np.ndarray, dict]] = {}
    rows: list[dict] = []
    line = progress.ProgressLine("image", len(chosen))
    clock = _Clock()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for tasks, labels in clock.watch(outputs(method, batches, mesh, config.eval.batch_size)):
            scored = list(pool.map(_score, tasks, labels))
            for task, label, scores in zip(tasks, labels, scored, strict=True):
                rows.append({"name": source.name(task.index)} | scores)
                if task.index in wanted:
                    panel[task.index] = task, label, scores
            line.show(len({row["name"] for row in rows}), f"{clock.ms_per_row():.1f} ms each")
    line.close()
    if not rows:
        raise InputError(f"{config.data.name}/{config.eval.split} has no target for a box.")
    means = summary(rows)
    _write(config, workdir, rows, means, clock.ms_per_row())
    titles = ("image", "cut out", "target") if boxed else ("regions", "mean colours", "a human")
    shown = [_row(source.name(i), *panel[i]) for i in sorted(panel)]
    if shown:
        layout.write_png(
            workdir / "pictures" / f"{config.eval.split}.png", region_maps.panel(shown, titles)
        )


class _Clock:
    """Time that is waited for the devices, without the first batch of every size: it compiles."""

    def __init__(self):
        self._seconds, self._rows, self._seen = 0.0, 0, set()

    def watch(self, batches: Iterator) -> Iterator:
        """The batches as they come, their time taken."""
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
        """Milliseconds a row; nan before a second batch of some size."""
        return 1e3 * self._seconds / self._rows if self._rows else float("nan")


def outputs(
    method: classical.Method, batches: Iterator[list[Task]], mesh: Mesh, batch_size: int
) -> Iterator[tuple[list[Task], list[np.ndarray]]]:
    """Yields (tasks, their labels int32 [H, W]).

    Args:
        method: of `classical.build`.
        batches: tasks of one size each, up to `batch_size`.
        mesh: the devices; rows are spread over them.
        batch_size: rows of the program; a short batch is filled up with its last task.

    Raises:
        InputError: if the batch does not divide over the devices.
    """
    devices = mesh.devices.size
    if batch_size % devices:
        raise InputError(
            f"config.eval.batch_size {batch_size} does not divide over {devices} devices."
        )
    program = over_batch(method, mesh)
    for tasks in batches:
        filled = tasks + [tasks[-1]] * (batch_size - len(tasks))
        rows = [task.arrays() for task in filled]
        arrays = [np.stack(parts) for parts in zip(*rows, strict=True)]
        labels = np.asarray(program(*arrays))
        yield tasks, list(labels[: len(tasks)])


def over_batch(method: classical.Method, mesh: Mesh) -> Callable[..., jax.Array]:
    """The method on a batch, [B, ...] each: jitted, rows over the devices, no word between them.

    A device takes its rows together; a CPU, which gains nothing from that and would run every loop
    as long as the slowest row needs, takes one after another.
    """
    alone = mesh.devices.flat[0].platform == "cpu"

    def rows(*arrays: jax.Array) -> jax.Array:
        if alone:
            return jax.lax.map(lambda row: method(*row), arrays)
        return jax.vmap(method)(*arrays)

    # Loop carries begin as constants, which the check takes for equal on all devices.
    spread = jax.shard_map(
        rows, mesh=mesh, in_specs=P(("data", "space")), out_specs=P(("data", "space")),
        check_vma=False,
    )  # fmt: skip
    return jax.jit(spread)


def _tasks(batches: Iterator[annotations.Batch], boxed: bool) -> Iterator[Task]:
    """Every example, or every target in it."""
    for batch in batches:
        index, image = int(batch["index"][0]), batch["image"][0]
        humans = batch["segmentations"][0, : batch["annotators"][0]]
        if boxed:
            yield from targets(index, image, humans)
        else:
            yield Task(index, image, humans)


def targets(index: int, image: np.ndarray, humans: np.ndarray) -> Iterator[Task]:
    """Each human segment of 5 to 40 % of the image, with its bounding box."""
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
        target, found = task.humans[0] == 1, (labels > 0) & (task.humans[0] >= 0)
        return {"iou": float((target & found).sum() / (target | found).sum())}
    scores = partitions.partition_scores(labels, task.humans)
    scores |= partitions.superpixel_scores(task.image, labels, task.humans)
    return scores | {
        f"f_{k}": v for k, v in region_boundaries.f_counts(labels, task.humans).items()
    }


def summary(rows: Sequence[dict]) -> dict[str, float]:
    """Means over images; boundary precision, recall and F from counts added up over them."""
    keys = [key for key in rows[0] if key != "name" and not key.startswith("f_")]
    values = {key: np.array([row[key] for row in rows], float) for key in keys}
    # A score that no image has, such as the recall of boundaries that no one drew, stays nan.
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
    """Writes eval-<split>.json, the rows beside it as .npz, and prints the means."""
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
    with event_log.Tracker(workdir, step=0, total_steps=1) as tracker:
        tracker.write(0, {f"eval/{key}": value for key, value in means.items()})
    cells = [(key, "absent" if np.isnan(value) else f"{value:.4f}") for key, value in means.items()]
    print(tables.format_table(cells, ("score", f"{config.data.name}/{split}")))
    print(f"{len(rows)} rows, {ms:.1f} ms each. Written: {path}")


def _row(name: str, task: Task, labels: np.ndarray, scores: dict) -> tuple[str, list[np.ndarray]]:
    if task.box is not None:
        cells = [
            task.image,
            region_maps.cutout(task.image, labels, task.box),
            region_maps.cutout(task.image, task.humans[0] == 1, task.box),
        ]
        return f"{name}: IoU {scores['iou']:.3f}", cells
    cells = [
        region_maps.boundaries(task.image, labels),
        region_maps.means(task.image, labels),
        region_maps.boundaries(task.image, task.humans[0]),
    ]
    text = ", ".join(f"{key} {scores[key]:.3f}" for key in ("covering", "vi", "rec2", "ev"))
    return f"{name}: {scores['regions']} regions, {text}", cells


def _spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` of `count` places, evenly."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist()


def predict(
    config: ml_collections.ConfigDict,
    images: Iterator[tuple[str, np.ndarray]],
    count: int,
    output: pathlib.Path,
) -> None:
    """Writes <name>.png (16-bit label map), <name>_boundaries.png and <name>_mean.png.

    Args:
        config: `method` and `predict.box` are read.
        images: (name, uint8 [H, W, 3]).
        count: how many they are.
        output: folder.

    Raises:
        InputError: on bad options, or a box that is missing or outside an image.
    """
    method = classical.build(**config.method)
    boxed = classical.takes_box(method)
    program = jax.jit(method)
    line = progress.ProgressLine("image", count)
    for done, (name, image) in enumerate(images):
        box = _check_box(config.predict.box, image.shape[:2], name) if boxed else None
        task = Task(done, image, np.zeros((0, *image.shape[:2]), np.int32), box)
        labels = np.asarray(program(*task.arrays()))
        path = output / f"{name}.png"
        files.write(path, png.encode_regions(labels, str(path)))
        layout.write_png(output / f"{name}_boundaries.png", region_maps.boundaries(image, labels))
        layout.write_png(output / f"{name}_mean.png", region_maps.means(image, labels))
        line.show(done + 1, f"{name}: {labels.max() + 1} regions")
    line.close()
    print(f"Written: {count} label maps with their boundaries and mean colours in {output}.")


def _check_box(box: Sequence[int], size: tuple[int, int], name: str) -> np.ndarray:
    top, left, bottom, right = box
    if not (0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]):
        raise InputError(
            f"config.predict.box is {tuple(box)}; top,left,bottom,right within the "
            f"{size[0]} x {size[1]} pixels of {name} are needed: --config.predict.box=10,20,200,300"
        )
    return np.array(box, np.int32)
