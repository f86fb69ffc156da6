"""Scaling on paper: training steps compiled for one chip up to thousands, and what grows.

    python -m experiments.benchmarks.scaling.bench --chip=h200 [--only=RECIPE]

Full width, images of 360 x 480, bfloat16, as many images a chip everywhere. Needs the chip's
compiler (segjax[cuda12] or segjax[tpu]) and no device. Each row is written to scaling.json as soon
as it is known, and README.md; rows that are there are not made again.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from experiments.shared import pages
from segjax import files, units
from segjax.compilers import chips, targets
from segjax.configuration import loading
from segjax.data.class_tables import CAMVID
from segjax.planning import plan, roofline

COMMAND = "python -m experiments.benchmarks.scaling.bench --chip=h200"
PATH = pathlib.Path(__file__).with_name("scaling.json")
RECIPES = {
    "fcn8s": "FCN-8s",
    "deeplab_v3_resnet50": "DeepLab v3 (ResNet-50)",
    "pspnet_resnet50": "PSPNet (ResNet-50)",
}
TOPOLOGIES = {
    "h200": ("1", "8", "4x8", "32x8"),
    "v5e": ("1", "2x4", "8x8", "16x16"),
    "v5p": ("8x8x8", "16x16x16"),
}
SIZE, IMAGES = (360, 480), 8  # of a chip


def main() -> None:
    """Adds the rows of a chip that are missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--chip", default="h200", choices=TOPOLOGIES)
    parser.add_argument("--only", default="", help="recipes, with commas")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(RECIPES)
    for name in names:
        for topology in TOPOLOGIES[given.chip]:
            key = f"{name}/{given.chip}/{topology}"
            rows = json.loads(PATH.read_text()) if PATH.exists() else {}
            if key not in rows:
                start = time.monotonic()
                rows[key] = row(name, given.chip, topology)
                files.write_json(PATH, rows)
                pages.write(PATH.with_name("README.md"), page(rows))
                print(f"{key}: {time.monotonic() - start:.0f} s", flush=True)


def row(name: str, chip: str, topology: str) -> dict:
    """What a step needs on a topology."""
    target = targets.target(chip, topology)
    if not target.own:
        sys.exit(targets.missing(target))
    config, count = loading.load(f"{name}:camvid"), len(target.devices)
    with config.unlocked():
        config.dtype, config.accumulate, config.batch_size = "bfloat16", 1, IMAGES * count
        config.augment.size = SIZE
    made = plan.training_step(plan.Recipe(config, CAMVID, SIZE, SIZE), target)
    bound = roofline.bound(made, target, "bfloat16")
    return {
        "chips": count,
        "processes": target.processes,
        "memory": made.memory.total,
        "flops_a_chip": (made.operations.products + made.operations.again) / count,
        "bytes": made.traffic.bytes,
        "collectives": [dataclasses.asdict(c) for c in made.traffic.collectives],
        "seconds": dataclasses.asdict(bound),
        "efficiency": bound.efficiency,
    }


def page(rows: dict) -> list[str]:
    """The paragraphs of the page."""
    parts = [
        "# Scaling, on paper",
        pages.block(COMMAND, "python -m experiments.benchmarks.scaling.bench --chip=v5e"),
        f"A training step of {IMAGES} images of 360 x 480 a chip, full width, bfloat16, made by "
        "the chip's own compiler for that many chips; none was run. The network's time takes all "
        "collectives to go in rings over all chips, at the rate of the slowest link that they "
        "cross; the efficiency is that of a step in which nothing hides it, so it is the least to "
        "expect of these programs. jax 0.10.2, 2026-12-01.",
    ]
    head = (
        "chips", "processes", "memory a chip", "products a chip", "moved", "collectives",
        "compute", "memory", "network", "efficiency",
    )  # fmt: skip
    for name, title in RECIPES.items():
        for chip in TOPOLOGIES:
            found = [r for key, r in rows.items() if key.startswith(f"{name}/{chip}/")]
            if found:
                cells = [_cells(r) for r in sorted(found, key=lambda r: r["chips"])]
                parts += [f"## {title} on {chip}", pages.table(head, cells)]
    sources = {chip: chips.CHIPS[chip] for chip in TOPOLOGIES}
    parts.append("## Rates")
    parts += [
        f"{name}: {units.si(c.link, 'B/s')} a chip within a host or slice"
        + (f", {units.si(c.network, 'B/s')} between hosts" if c.network else "")
        + f" ({c.source})."
        for name, c in sources.items()
    ]
    return parts


def _cells(r: dict) -> tuple[str, ...]:
    told = ", ".join(
        f"{c['count']} {c['kind']} of {units.si(c['bytes'], 'B')}" for c in r["collectives"]
    )
    times = (f"{1e3 * r['seconds'][key]:.1f} ms" for key in ("compute", "memory", "network"))
    return (
        str(r["chips"]),
        str(r["processes"]),
        units.memory(r["memory"]),
        units.si(r["flops_a_chip"], "FLOP"),
        units.si(r["bytes"], "B"),
        told or "none",
        *times,
        f"{100 * r['efficiency']:.0f} %",
    )


if __name__ == "__main__":
    main()
