"""The comparison of two stored evaluations of the same images."""

import dataclasses
import json
import pathlib
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
from segjax.metrics import bootstrap, confusion
from segjax.metrics.metric import number, percent
from segjax.pictures import label_maps, layout
from segjax.runs import progress, run_folder

SHOWN = 10
"""Images in the picture."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """An evaluation as it was stored.

    Attributes:
        path: its file of scores.
        fields: the content of that file.
        names: of its images.
        marginals: int64 [n, 3, K] of its images, see `confusion.marginals`.
        index: int64 [n], items of the data set.
    """

    path: pathlib.Path
    fields: dict[str, Any]
    names: list[str]
    marginals: np.ndarray
    index: np.ndarray

    @property
    def title(self) -> str:
        """Run, step, views and CRF in a few words."""
        protocol = self.fields["protocol"]
        names = [protocol["views"]["name"]]
        if protocol.get("crf"):
            names.append(protocol["crf"]["name"])
        return f"{self.path.parent.name}, step {self.fields['step']}, {', '.join(names)}"


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """An image and the share of its labelled pixels that two evaluations label differently."""

    share: float
    name: str
    index: int


def load(path: pathlib.Path, split: str) -> Stored:
    """Reads an eval-*.json, or that of a run folder and a split ("" for the config's).

    Raises:
        InputError: if it is missing or damaged, or lacks the counts of single images.
    """
    if path.is_dir():
        path = report.path_of(path, split or run_folder.read_config(path).eval.split)
    if not path.is_file():
        raise InputError(f"compare: there is no {path}: run segjax.evaluate first.")
    arrays = path.with_suffix(".npz")
    try:
        fields = json.loads(path.read_text())
        with np.load(arrays, allow_pickle=False) as by_image:
            return Stored(
                path,
                fields,
                by_image["names"].tolist(),
                by_image["marginals"],
                by_image["index"],
            )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"compare: {path} and {arrays.name} hold no scores by image ({error}); run "
            "segjax.evaluate once more."
        ) from error


def aligned(a: Stored, b: Stored) -> Stored:
    """`b` with its images in the order of `a`.

    Raises:
        InputError: if classes or images differ.
    """
    for what, one, two in (
        ("classes", [*a.fields["iou"]], [*b.fields["iou"]]),
        ("images", sorted(a.names), sorted(b.names)),
    ):
        if one != two:
            raise InputError(f"compare: {a.path} and {b.path} are of different {what}.")
    where = {name: i for i, name in enumerate(b.names)}
    order = [where[name] for name in a.names]
    return dataclasses.replace(b, names=a.names, marginals=b.marginals[order], index=b.index[order])


def check_data(a: Stored, b: Stored, dataset: Dataset) -> None:
    """Passes two evaluations of the same data, be their fingerprints of the old rule or the new.

    Args:
        a, b: the evaluations.
        dataset: the data as they are now.

    Raises:
        InputError: if the data differ.
    """
    stored = {a.fields["data"], b.fields["data"]}
    if len(stored) == 1:
        return
    scan = open_split(dataset, a.fields["protocol"]["split"]).scan
    # The old rule counted the name, which may have been that of the data's folder.
    configs = [run_folder.read_config(one.path.parent) for one in (a, b)]
    roots = {pathlib.Path(config.data.get("root", "")).name for config in configs}
    known = {scan.old_fingerprint(name) for name in {dataset.spec.name, *roots}}
    if not stored <= {scan.fingerprint, *known}:
        raise InputError(f"compare: {a.path} and {b.path} are of different data sets.")


def run(first: pathlib.Path, second: pathlib.Path, split: str, output: pathlib.Path) -> None:
    """Prints a comparison and writes compare.json and disagreements.png.

    Args:
        first, second: run folders or files of scores.
        split: of run folders; "" for the config's.
        output: folder.

    Raises:
        InputError: if they cannot be read, or are not of the same images.
    """
    a, b = load(first, split), load(second, split)
    dataset = catalog.load(**run_folder.read_config(a.path.parent).data)
    source = dataset.splits[a.fields["protocol"]["split"]]
    check_data(a, b, dataset)
    b = aligned(a, b)
    rows, fields = differences(a, b)
    print(f"A: {a.title}\nB: {b.title}")
    print(tables.format_table(rows, ("", "A %", "B %", "A - B", "interval")))
    maps = kept_labels.Reader(a.path), kept_labels.Reader(b.path)
    images = disagreements(a, source, maps, dataset.spec.num_classes)
    fields["disagreement"] = {image.name: image.share for image in images}
    shown = []
    for image in images[:SHOWN]:
        caption = f"{image.name}: {100 * image.share:.1f} % differ"
        picture, truth = source[image.index]
        shown.append((caption, picture, truth, maps[0][image.name], maps[1][image.name]))
    layout.write_png(output / "disagreements.png", label_maps.disagreements(shown, dataset.spec))
    files.write_json(output / "compare.json", fields)
    print(f"Written: {output / 'compare.json'} and disagreements.png")


def disagreements(
    stored: Stored,
    source: Source,
    maps: Sequence[kept_labels.Reader],
    num_classes: int,
) -> list[Disagreement]:
    """All images of an evaluation, the one with the largest disagreement first.

    Args:
        stored: one of the two evaluations.
        source: the split.
        maps: the label maps of both.
        num_classes: K; other labels do not count.
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
    """mIoU and the IoU of every class: rows for people, and fields for JSON."""
    total = bootstrap.miou_difference(a.marginals, b.marginals)
    by_class = bootstrap.iou_differences(a.marginals, b.marginals)
    sums = [stored.marginals.sum(0) for stored in (a, b)]
    scores = [[confusion.miou(counts), *confusion.iou(counts)] for counts in sums]
    names = ["mIoU", *a.fields["iou"]]
    rows, fields = [], {}
    for name, of_a, of_b, interval in zip(names, *scores, [total, *by_class], strict=True):
        known = not np.isnan(interval.value)
        bounds = f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"
        rows.append(
            (
                name,
                percent(of_a),
                percent(of_b),
                f"{100 * interval.value:+.2f}" if known else "absent",
                bounds if known else "",
            )
        )
        numbers = (of_a, of_b, interval.value, interval.low, interval.high)
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
