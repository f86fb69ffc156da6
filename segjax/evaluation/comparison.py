"""Two evaluations of the same images: by how much one is better, for how sure, and where.

Numbers come from what `segjax.evaluate` stored, so that runs, checkpoints and protocols can be
compared without running anything again.
"""

import dataclasses
import json
import pathlib
import zipfile
from typing import Any

import numpy as np

from segjax import files, tables
from segjax.data import catalog, png
from segjax.errors import InputError
from segjax.evaluation import report
from segjax.metrics import bootstrap, confusion
from segjax.pictures import label_maps, layout
from segjax.runs import progress, run_folder

SHOWN = 10
"""Images that are drawn."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """An evaluation as it was stored.

    Attributes:
        path: its file of scores.
        fields: what is in it.
        names: of its images.
        marginals: int64 [n, 3, K].
        index: int64 [n], items of the data set.
    """

    path: pathlib.Path
    fields: dict[str, Any]
    names: list[str]
    marginals: np.ndarray
    index: np.ndarray

    @property
    def title(self) -> str:
        """Run, step and views, in few words."""
        how = self.fields["protocol"]
        names = [how["views"]["name"], *([how["crf"]["name"]] if how.get("crf") else [])]
        return f"{self.path.parent.name}, step {self.fields['step']}, {', '.join(names)}"


class LabelMaps:
    """The label maps beside a file of scores.

    Args:
        path: of the scores.

    Raises:
        InputError: if there are none.
    """

    def __init__(self, path: pathlib.Path):
        parts = report.labels_of(path)
        if not parts:
            raise InputError(
                f"{path} has no label maps beside it ({path.stem}-labels.zip): run "
                "segjax.evaluate once more."
            )
        self._path = path
        self._where: dict[str, zipfile.ZipFile] = {}
        for file in parts:
            try:
                opened = zipfile.ZipFile(file)
            except (OSError, zipfile.BadZipFile) as error:
                raise InputError(f"{file} cannot be read: {error}.") from error
            self._where |= dict.fromkeys(opened.namelist(), opened)

    def __getitem__(self, name: str) -> np.ndarray:
        """uint8 [H, W], of the image of this name."""
        file = f"{name}.png"
        if file not in self._where:
            raise InputError(f"{self._path}: there is no label map of {name}.")
        return png.decode_mask(self._where[file].read(file), f"{self._path}: {file}")


def load(path: pathlib.Path, split: str) -> Stored:
    """An eval-*.json, or that of a run folder and a split.

    Raises:
        InputError: if it is not there, or lacks what every image adds.
    """
    if path.is_dir():
        path = report.path_of(path, split or run_folder.read_config(path).eval.split)
    if not path.is_file():
        raise InputError(f"--compare: there is no {path}: run segjax.evaluate first.")
    arrays = path.with_suffix(".npz")
    try:
        fields = json.loads(path.read_text())
        with np.load(arrays, allow_pickle=False) as found:
            return Stored(path, fields, found["names"].tolist(), found["marginals"], found["index"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"--compare: {path} and {arrays.name} hold no scores by image ({error}); run "
            "segjax.evaluate once more."
        ) from error


def aligned(a: Stored, b: Stored) -> Stored:
    """`b` with its images in the order of `a`.

    Raises:
        InputError: if they were not made of the same images and classes.
    """
    for what, one, two in (
        ("data set", a.fields["data"], b.fields["data"]),
        ("classes", [*a.fields["iou"]], [*b.fields["iou"]]),
        ("images", sorted(a.names), sorted(b.names)),
    ):
        if one != two:
            raise InputError(f"--compare: {a.path} and {b.path} are of different {what}.")
    where = {name: i for i, name in enumerate(b.names)}
    order = [where[name] for name in a.names]
    return dataclasses.replace(b, names=a.names, marginals=b.marginals[order], index=b.index[order])


def run(first: pathlib.Path, second: pathlib.Path, split: str, output: pathlib.Path) -> None:
    """Prints and writes the comparison: compare.json and disagreements.png in `output`."""
    a = load(first, split)
    b = aligned(a, load(second, split))
    rows, fields = differences(a, b)
    print(f"A: {a.title}\nB: {b.title}")
    print(tables.format_table(rows, ("", "A %", "B %", "A - B", "interval")))
    part = run_folder.read_config(a.path.parent)
    dataset = catalog.load(**part.data)
    source = dataset.splits[a.fields["protocol"]["split"]]
    line = progress.ProgressLine("image", len(a.names))
    maps = LabelMaps(a.path), LabelMaps(b.path)
    found = []
    for done, (name, index) in enumerate(zip(a.names, a.index, strict=True), 1):
        of_a, of_b = (both[name] for both in maps)
        truth = source[int(index)][1]
        counted = truth < dataset.spec.num_classes
        share = float((of_a != of_b)[counted].mean()) if counted.any() else 0.0
        found.append((share, name, int(index)))
        line.show(done)
    line.close()
    found.sort(key=lambda entry: (-entry[0], entry[1]))
    fields["disagreement"] = {name: share for share, name, _ in found}
    shown = []
    for share, name, index in found[:SHOWN]:
        image, truth = source[index]
        shown.append(
            (f"{name}: {100 * share:.1f} % differ", image, truth, *(m[name] for m in maps))
        )
    picture = label_maps.disagreements(shown, dataset.spec)
    layout.write_png(output / "disagreements.png", picture)
    files.write_json(output / "compare.json", fields)
    print(f"Written: {output / 'compare.json'} and disagreements.png")


def differences(a: Stored, b: Stored) -> tuple[list[tuple], dict[str, Any]]:
    """mIoU and every class: rows for people, and fields for JSON.

    An interval that does not hold 0 says that the difference is not the choice of images.
    """
    total = bootstrap.miou_difference(a.marginals, b.marginals)
    by_class = bootstrap.iou_differences(a.marginals, b.marginals)
    classes = [*a.fields["iou"]]
    both = [(confusion.miou(s.marginals.sum(0)), confusion.iou(s.marginals.sum(0))) for s in (a, b)]
    rows, fields = [], {}
    values = zip(
        ["mIoU", *classes],
        [both[0][0], *both[0][1]],
        [both[1][0], *both[1][1]],
        [total, *by_class],
        strict=True,
    )
    for name, of_a, of_b, interval in values:
        bounds = f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"
        known = not np.isnan(interval.value)
        rows.append(
            (
                name,
                report.percent(of_a),
                report.percent(of_b),
                f"{100 * interval.value:+.2f}" if known else "absent",
                bounds if known else "",
            )
        )
        numbers = (of_a, of_b, interval.value, interval.low, interval.high)
        keys = ("a", "b", "difference", "low", "high")
        fields[name] = {k: report.number(v) for k, v in zip(keys, numbers, strict=True)}
    return rows, {
        "a": str(a.path),
        "b": str(b.path),
        "level": bootstrap.LEVEL,
        "draws": bootstrap.DRAWS,
        "images": len(a.names),
        "iou": fields,
    }
