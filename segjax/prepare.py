"""Looks at a data set and checks it, before anything is trained on it.

    python -m segjax.prepare show --config=configs/fcn8s.py:camvid [--split=train] [--output=DIR]
    python -m segjax.prepare check --config=configs/fcn8s.py:camvid

`show` writes `<name>-<split>-sheet.png`, examples over their coloured labels, and
`<name>-<split>.json`, what the labels hold. `check` reads every split and lists every problem. Of a
data set without classes, such as bsds500, the sheet shows the boundaries that people drew.
"""

import collections
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags

from segjax import cli, files
from segjax.data import annotations, catalog, class_weights, scan
from segjax.data.spec import DatasetSpec
from segjax.errors import InputError
from segjax.pictures import label_maps, layout, region_maps

_ON_SHEET = 12  # examples


def define_flags() -> None:
    """The flags of the verb."""
    cli.define("config")
    cli.define(
        split=("train", "split that `show` looks at"), output=("out", "folder `show` writes to")
    )


def show(
    dataset: catalog.Dataset, split: str, output: Path, *, log: Callable[[str], None] = print
) -> None:
    """Writes the contact sheet and the statistics of a split into `output`, and logs them.

    Raises:
        InputError: if there is no such split, or its scan finds a problem.
    """
    spec, source = dataset.spec, dataset.splits[split]
    result = scan.scan(source, spec, name=f"{spec.name} {split}")
    facts = statistics(result, spec, split)
    start = f"{spec.name}-{split}"
    files.write_json(output / f"{start}.json", facts)
    # Spread over the split: neighbours are often frames of one video.
    chosen = np.linspace(0, len(source) - 1, min(_ON_SHEET, len(source))).astype(int)
    sheet = label_maps.contact_sheet([source[int(i)] for i in chosen], spec, columns=4)
    layout.write_png(output / f"{start}-sheet.png", sheet)
    for line in table(facts):
        log(line)
    log(f"Written: {output / start}-sheet.png, {output / start}.json")


def statistics(result: scan.Scan, spec: DatasetSpec, split: str) -> dict:
    """What a scan found, as plain data.

    Shares are of all pixels for void and of those with truth for the classes; the minimum and
    maximum are those of the raw ids; counts are those of the `sampled` examples.
    """
    weights = class_weights.median_frequency(result)
    sizes = collections.Counter(map(tuple, result.sizes.tolist())).most_common()
    labelled = int(result.pixels.sum())
    return {
        "dataset": spec.name,
        "split": split,
        "examples": len(result.sizes),
        "sampled": result.sampled,
        "fingerprint": result.fingerprint,
        "sizes": [{"height": h, "width": w, "examples": n} for (h, w), n in sizes],
        "raw_ids": {str(i): n for i, n in sorted(result.raw.items())},
        "minimum": min(result.raw),
        "maximum": max(result.raw),
        "num_classes": spec.num_classes,
        "void": {"pixels": result.void, "share": result.void / (labelled + result.void)},
        "classes": [
            {
                "name": name,
                "pixels": int(result.pixels[i]),
                "share": float(result.pixels[i] / max(labelled, 1)),
                "images": int(result.images[i]),
                "median_frequency_weight": round(float(weights[i]), 6),
            }
            for i, name in enumerate(spec.classes)
        ],
    }


def table(facts: dict) -> list[str]:
    """The statistics as lines for a terminal."""
    sizes = facts["sizes"]
    shown = ", ".join(f"{s['height']} x {s['width']} ({s['examples']})" for s in sizes[:3])
    ids = facts["raw_ids"]
    lines = [
        f"{facts['dataset']} {facts['split']}: {facts['examples']} examples, "
        f"{facts['sampled']} of them read; {facts['num_classes']} classes.",
        f"Sizes (height x width): {shown}{f' and {len(sizes) - 3} more' if sizes[3:] else ''}.",
        f"{len(ids)} raw ids from {facts['minimum']} to {facts['maximum']}: {', '.join(ids)}.",
        "",
    ]
    wide = max(len(c["name"]) for c in facts["classes"] + [{"name": "class"}])
    lines.append(f"{'class':<{wide}}  {'pixels':>14}  {'share':>8}  {'images':>7}  {'weight':>8}")
    for c in facts["classes"]:
        lines.append(
            f"{c['name']:<{wide}}  {c['pixels']:>14}  {c['share']:>8.3%}  {c['images']:>7}  "
            f"{c['median_frequency_weight']:>8.4f}" + ("" if c["pixels"] else "  absent")
        )
    void = facts["void"]
    return [*lines, f"{'void':<{wide}}  {void['pixels']:>14}  {void['share']:>8.3%} of all", ""]


def check(dataset: catalog.Dataset, *, log: Callable[[str], None] = print) -> None:
    """Reads every example of every split and logs each problem on a line of its own.

    Raises:
        InputError: at the end, if there was any problem.
    """
    problems, bad = 0, []
    for split in dataset.splits:
        name = f"{dataset.spec.name} {split}"
        try:
            source = dataset.splits[split]
            result = scan.scan(source, dataset.spec, name=name, fresh=True)
        except InputError as error:
            found = getattr(error, "problems", None) or [str(error)]
            problems, bad = problems + len(found), [*bad, split]
            for line in found:
                log(line)
        else:
            log(f"{name}: {result.sampled} examples read, no problem.")
    if bad:
        raise InputError(f"{dataset.spec.name}: {problems} problems in {', '.join(bad)}.")


def show_regions(
    dataset: catalog.RegionDataset, split: str, output: Path, *, log: Callable[[str], None] = print
) -> None:
    """Writes the sheet and the sizes of a split without classes into `output`, and logs them.

    Raises:
        InputError: if there is no such split, or one of its files cannot be taken.
    """
    source = dataset.splits[split]
    measures = annotations.sizes(source, range(len(source)))
    sizes = collections.Counter(map(tuple, measures[:, :2].tolist())).most_common()
    facts = {
        "dataset": dataset.name,
        "split": split,
        "examples": len(source),
        "sizes": [{"height": h, "width": w, "examples": n} for (h, w), n in sizes],
        "annotators": {"fewest": int(measures[:, 2].min()), "most": int(measures[:, 2].max())},
    }
    start = f"{dataset.name}-{split}"
    files.write_json(output / f"{start}.json", facts)
    rows = []
    for index in np.linspace(0, len(source) - 1, min(_ON_SHEET // 2, len(source))).astype(int):
        image, humans = source[int(index)]
        drawn = [region_maps.boundaries(image, human) for human in humans[:2]]
        counts = ", ".join(str(human.max() + 1) for human in humans)
        text = f"{source.name(int(index))}: {counts} segments"
        rows.append((text, [image, *drawn, *[image] * (2 - len(drawn))]))
    titles = ("image", "one person", "another")
    layout.write_png(output / f"{start}-sheet.png", region_maps.panel(rows, titles))
    log(f"{start}: {len(source)} examples, {facts['annotators']} annotators each, {facts['sizes']}")
    log(f"Written: {output / start}-sheet.png, {output / start}.json")


def check_regions(dataset: catalog.RegionDataset, *, log: Callable[[str], None] = print) -> None:
    """Reads every example of every split; stops at the first that cannot be taken.

    Raises:
        InputError: naming it.
    """
    for split in dataset.splits:
        measures = annotations.sizes(dataset.splits[split], range(len(dataset.splits[split])))
        log(f"{dataset.name} {split}: {len(measures)} examples read, no problem.")


def main(argv: list[str]) -> None:
    """`prepare show` or `prepare check`, on the data set of --config."""
    actions = {"show": (show, show_regions), "check": (check, check_regions)}
    if len(argv) != 2 or argv[1] not in actions:
        raise InputError(
            f"prepare does one of {', '.join(actions)}, got {' '.join(argv[1:]) or 'nothing'}: "
            "python -m segjax.prepare show --config=configs/NAME.py"
        )
    dataset = catalog.load_any(**cli.config().data)
    action = actions[argv[1]][isinstance(dataset, catalog.RegionDataset)]
    action(dataset, *((flags.FLAGS.split, Path(flags.FLAGS.output)) if argv[1] == "show" else ()))


VERB = cli.Verb(define_flags, main, words=1)

if __name__ == "__main__":
    VERB.run()
