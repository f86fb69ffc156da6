"""Comparison of two stored evaluations of the same images."""

import contextlib
import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from segjax import files, tables
from segjax.data import catalog
from segjax.data.dataset import Dataset
from segjax.data.sources import Source
from segjax.data.splits import open_split
from segjax.errors import InputError
from segjax.evaluation import kept_labels, report
from segjax.evaluation.result import mark
from segjax.metrics import bootstrap, confusion
from segjax.metrics.metric import number, percent
from segjax.pictures import label_maps, layout
from segjax.runs import checkpoint, data_record, progress, run_folder

SHOWN = 10
"""Number of images in the picture."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """A stored evaluation.

    Attributes:
        path: the JSON file of scores.
        fields: content of that file.
        names: image names.
        marginals: int64 [n, 3, K], one entry per image, see `confusion.marginals`.
        index: int64 [n], data set index of each image.
    """

    path: pathlib.Path
    fields: dict[str, Any]
    names: list[str]
    marginals: np.ndarray
    index: np.ndarray

    @property
    def mark(self) -> str:
        """The mark of the result, see `result.mark`; "" for files that were written without."""
        known: str = self.fields.get("result", "")
        return known

    @property
    def title(self) -> str:
        """A short title with run, step, views and CRF."""
        protocol = self.fields["protocol"]
        names = [protocol["views"]["name"]]
        if protocol.get("crf"):
            names.append(protocol["crf"]["name"])
        return f"{self.path.parent.name}, step {self.fields['step']}, {', '.join(names)}"


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """An image and the share of its labelled pixels on which two evaluations disagree.

    Attributes:
        share: 0 to 1.
        name: image name.
        index: data set index of the image.
    """

    share: float
    name: str
    index: int


def load(path: pathlib.Path, split: str) -> Stored:
    """Reads a stored evaluation.

    Args:
        path: an eval-*.json file, or a run folder.
        split: split to read from a run folder; "" for the split in its config.

    Raises:
        InputError: if the file is missing or damaged, or lacks per-image counts.
    """
    if path.is_dir():
        path = report.path_of(path, split or run_folder.read_config(path).eval.split)
    if not path.is_file():
        raise InputError(f"compare: {path} does not exist; run segjax.evaluate first.")
    arrays = path.with_suffix(".npz")
    try:
        fields = json.loads(path.read_text())
        with np.load(arrays, allow_pickle=False) as by_image:
            stored = Stored(
                path,
                fields,
                by_image["names"].tolist(),
                by_image["marginals"],
                by_image["index"],
            )
        whole = _is_whole(stored)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"compare: {path} and {arrays.name} hold no per-image scores ({error}); run "
            "segjax.evaluate again."
        ) from error
    if not whole:
        raise InputError(
            f"compare: {path} and {arrays.name} are of different evaluations; run segjax.evaluate "
            "again."
        )
    return stored


def _is_whole(stored: Stored) -> bool:
    """Whether the scores are those of the counts; files without a mark are told by their IoU."""
    if stored.mark:
        return stored.mark == mark(stored.names, stored.marginals)
    iou = confusion.iou(stored.marginals.sum(0))
    told = [np.nan if x in (None, "absent") else x for x in stored.fields["iou"].values()]
    return len(told) == len(iou) and np.allclose(told, iou, rtol=0, atol=1e-9, equal_nan=True)


def aligned(a: Stored, b: Stored) -> Stored:
    """Returns `b` with its images in the order of `a`.

    Raises:
        InputError: if the classes or the images differ.
    """
    for what, one, two in (
        ("classes", [*a.fields["iou"]], [*b.fields["iou"]]),
        ("images", sorted(a.names), sorted(b.names)),
    ):
        if one != two:
            raise InputError(f"compare: {a.path} and {b.path} have different {what}.")
    where = {name: i for i, name in enumerate(b.names)}
    order = [where[name] for name in a.names]
    return dataclasses.replace(b, names=a.names, marginals=b.marginals[order], index=b.index[order])


def check_data(a: Stored, b: Stored, dataset: Dataset) -> None:
    """Checks that two evaluations used the same data; accepts old and new fingerprints.

    Args:
        a, b: the evaluations.
        dataset: the current data set.

    Raises:
        InputError: if the data differ.
    """
    stored = {a.fields["data"], b.fields["data"]}
    if len(stored) == 1:
        return
    scan = open_split(dataset, a.fields["protocol"]["split"]).scan
    # Old fingerprints include the data set's name, which may have been its folder's name.
    names = {dataset.spec.name}
    for one in (a, b):
        folder = one.path.parent
        root = pathlib.Path(run_folder.read_config(folder).data.get("root") or ".")
        names |= {root.name, root.absolute().name, root.resolve().name}
        names.add(_trained_name(folder))
    if stored <= {scan.fingerprint, *map(scan.old_fingerprint, names)}:
        return
    told = data_record.difference(*((one.path.parent, one.fields["data"]) for one in (a, b)))
    raise InputError(
        f"compare: {a.path} and {b.path} used different data" + (f": {told}." if told else ".")
    )


def _trained_name(workdir: pathlib.Path) -> str:
    """The name that the data set had when the run was trained; "" if no checkpoint tells."""
    directory = workdir / "checkpoints"
    if not checkpoint.steps_in(directory):
        return ""
    best = run_folder.read_config(workdir).best
    with contextlib.closing(checkpoint.Checkpoints(directory, **best, read_only=True)) as stored:
        name: str = stored.read_meta()["spec"]["name"]
    return name


def run(
    first: pathlib.Path,
    second: pathlib.Path,
    split: str,
    output: pathlib.Path,
    *,
    data_root: str = "",
    overwrite: bool = False,
) -> None:
    """Prints a comparison and writes compare.json and disagreements.png.

    Args:
        first, second: run folders or eval-*.json files.
        split: split to read from run folders; "" for the split in their configs.
        output: output folder.
        data_root: folder where the data set lies now; "" for that in the config of A.
        overwrite: whether the files of another comparison may be replaced.

    Raises:
        InputError: if an evaluation cannot be read, the two are of different images, or the output
            is there already.
    """
    results = [output / "disagreements.png", output / "compare.json"]
    files.check_free({"the comparison": results}, overwrite=overwrite)
    a, b = load(first, split), load(second, split)
    where = {"root": data_root} if data_root else {}
    dataset = catalog.load(**{**run_folder.read_config(a.path.parent).data, **where})
    source = dataset.splits[a.fields["protocol"]["split"]]
    check_data(a, b, dataset)
    b = aligned(a, b)
    maps = kept_labels.Reader(a.path, a.mark), kept_labels.Reader(b.path, b.mark)
    rows, fields = differences(a, b)
    print(f"A: {a.title}\nB: {b.title}")
    print(tables.format_table(rows, ("", "A %", "B %", "A - B", "interval")))
    images = disagreements(a, source, maps, dataset.spec.num_classes)
    fields["disagreement"] = {image.name: image.share for image in images}
    shown = []
    for image in images[:SHOWN]:
        caption = f"{image.name}: {100 * image.share:.1f} % differ"
        picture, truth = source[image.index]
        shown.append((caption, picture, truth, maps[0][image.name], maps[1][image.name]))
    layout.write_png(results[0], label_maps.disagreements(shown, dataset.spec))
    files.write_json(results[1], fields)
    print(f"Written: {results[1]} and disagreements.png")


def disagreements(
    stored: Stored,
    source: Source,
    maps: Sequence[kept_labels.Reader],
    num_classes: int,
) -> list[Disagreement]:
    """The images of an evaluation, sorted by disagreement, largest first.

    Args:
        stored: either evaluation.
        source: the split.
        maps: label maps of both evaluations.
        num_classes: K; pixels with labels K and above are ignored.
    """
    line = progress.ProgressLine("image", len(stored.names))
    images = []
    for done, (name, index) in enumerate(zip(stored.names, stored.index, strict=True), 1):
        differ = maps[0][name] != maps[1][name]
        counted = source[int(index)][1] < num_classes
        share = float(differ[counted].mean()) if counted.any() else 0.0
        images.append(Disagreement(share, name, int(index)))
        line.show(done)
    line.close()
    return sorted(images, key=lambda image: (-image.share, image.name))


def differences(a: Stored, b: Stored) -> tuple[list[tuple], dict[str, Any]]:
    """Differences in mIoU and per-class IoU, as table rows and as JSON fields."""
    total, by_class = bootstrap.differences(a.marginals, b.marginals)
    sums = [stored.marginals.sum(0) for stored in (a, b)]
    scores = [[confusion.miou(counts), *confusion.iou(counts)] for counts in sums]
    names = ["mIoU", *a.fields["iou"]]
    rows, fields = [], {}
    for name, score_a, score_b, interval in zip(names, *scores, [total, *by_class], strict=True):
        known = not np.isnan(interval.value)
        bounds = f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"
        rows.append(
            (
                name,
                percent(score_a),
                percent(score_b),
                f"{100 * interval.value:+.2f}" if known else "absent",
                bounds if known else "",
            )
        )
        numbers = (score_a, score_b, interval.value, interval.low, interval.high)
        keys = ("a", "b", "difference", "low", "high")
        fields[name] = {key: number(value) for key, value in zip(keys, numbers, strict=True)}
    return rows, {
        "a": str(a.path),
        "b": str(b.path),
        "level": bootstrap.LEVEL,
        "draws": bootstrap.DRAWS,
        "images": len(a.names),
        "iou": fields,
    }
