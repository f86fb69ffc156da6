"""Contact sheets: examples of a split as a picture, and what the split holds as JSON."""

import collections
from collections.abc import Callable
from pathlib import Path

import numpy as np

from segjax import files
from segjax.data import annotations, scan
from segjax.data.dataset import Dataset, RegionDataset
from segjax.pictures import label_maps, layout, region_maps
from segjax.preparation import statistics

_ON_SHEET = 12  # examples


def show(
    dataset: Dataset,
    split: str,
    output: Path,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> None:
    """Writes the contact sheet and the statistics of a split, and logs the statistics.

    Args:
        dataset: the data set.
        split: its part.
        output: folder of <name>-<split>-sheet.png and <name>-<split>.json.
        overwrite: whether files of these names may be replaced.
        log: takes every line for people.

    Raises:
        InputError: if there is no such split, its scan finds a problem, or the files are there.
    """
    spec, source = dataset.spec, dataset.splits[split]
    table, picture = _free(output, spec.name, split, overwrite)
    result = scan.scan(source, spec, name=f"{spec.name} {split}")
    facts = statistics.of_scan(result, spec, split)
    files.write_json(table, facts)
    # Spread over the split: neighbours are often frames of one video.
    chosen = np.linspace(0, len(source) - 1, min(_ON_SHEET, len(source))).astype(int)
    sheet = label_maps.contact_sheet([source[int(i)] for i in chosen], spec, columns=4)
    layout.write_png(picture, sheet)
    for line in statistics.table(facts):
        log(line)
    log(f"Written: {picture}, {table}")


def show_regions(
    dataset: RegionDataset,
    split: str,
    output: Path,
    *,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> None:
    """Writes the contact sheet and the sizes of a split without classes, and logs the sizes.

    Args:
        dataset, split, output, overwrite, log: as of `show`.

    Raises:
        InputError: if there is no such split, one of its files is wrong, or the files are there.
    """
    source = dataset.splits[split]
    table, picture = _free(output, dataset.name, split, overwrite)
    measures = annotations.sizes(source, range(len(source)))
    sizes = collections.Counter(map(tuple, measures[:, :2].tolist())).most_common()
    facts = {
        "dataset": dataset.name,
        "split": split,
        "examples": len(source),
        "sizes": [{"height": h, "width": w, "examples": n} for (h, w), n in sizes],
        "annotators": {"fewest": int(measures[:, 2].min()), "most": int(measures[:, 2].max())},
    }
    files.write_json(table, facts)
    rows = []
    for index in np.linspace(0, len(source) - 1, min(_ON_SHEET // 2, len(source))).astype(int):
        image, humans = source[int(index)]
        drawn = [region_maps.boundaries(image, human) for human in humans[:2]]
        counts = ", ".join(str(human.max() + 1) for human in humans)
        text = f"{source.name(int(index))}: {counts} segments"
        rows.append((text, [image, *drawn, *[image] * (2 - len(drawn))]))
    titles = ("image", "one person", "another")
    layout.write_png(picture, region_maps.panel(rows, titles))
    log(
        f"{dataset.name}-{split}: {len(source)} examples, {facts['annotators']} annotators each, "
        f"{facts['sizes']}"
    )
    log(f"Written: {picture}, {table}")


def _free(output: Path, name: str, split: str, overwrite: bool) -> tuple[Path, Path]:
    """The paths of the table and of the picture, if nothing of another is there."""
    table, picture = output / f"{name}-{split}.json", output / f"{name}-{split}-sheet.png"
    files.check_free({f"the sheet of {name} {split}": [table, picture]}, overwrite=overwrite)
    return table, picture
