"""What `mesh.space` leaves a device to do: every network recipe on 2 x 4 devices and on 2 x 1.

    python -m experiments.benchmarks.space.bench [RECIPE ...]

Compiles the training and the evaluation step of each recipe, `smoke`, for two images of 512 x 256,
with the forms of convolutions that accelerators take, and writes a row to space.json as soon as it
is known, and README.md; rows that are there are not made again. Without a recipe all of them.
"""

import dataclasses
import json
import pathlib
import sys

import jax

from experiments.shared import pages
from segjax import sharding
from segjax.compilers import optimised, targets
from segjax.configuration import loading
from segjax.data import pipeline
from segjax.data.class_tables import CAMVID
from segjax.network import Network
from segjax.planning import plan

COMMAND = "python -m experiments.benchmarks.space.bench"
SIZE = (512, 256)
PATH = pathlib.Path(__file__).with_name("space.json")


def costs(compiled: jax.stages.Compiled) -> dict:
    """What a program costs a device."""
    traffic = optimised.traffic(compiled.as_text())
    return {
        "flops": compiled.cost_analysis()["flops"],
        "temporary": compiled.memory_analysis().temp_size_in_bytes,
        "collectives": {c.kind: [c.count, c.bytes] for c in traffic.collectives},
    }


def steps(name: str, devices: int, space: int) -> dict:
    """The costs of both steps on so many devices, and the bytes of the parameters."""
    config = loading.load(f"{name}:smoke")
    with config.unlocked():
        config.mesh.space, config.batch_size, config.accumulate = space, 2, 1
        config.augment.size = SIZE
    target = dataclasses.replace(targets.target("cpu", "8"), devices=tuple(jax.devices()[:devices]))
    recipe = plan.Recipe(config, CAMVID, SIZE, SIZE)
    training = plan.assembled(recipe, target)
    rows = pipeline.empty_batch(SIZE, config.preprocess.mean, 2)
    batch = sharding.batch_shapes(training.mesh, rows)
    state = training.state_shapes()
    network = Network(state.params, state.batch_stats, training.model)
    look = plan.look(recipe, training)
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "train": costs(training.step.lower(state, batch).compile()),
        "evaluate": costs(look.lower(network, batch).compile()),
    }


def ratios(row: dict, step: str) -> tuple[float, float]:
    """Operations and memory of a device as multiples of a quarter of those on 2 x 1."""
    one, four = row["2x1"][step], row["2x4"][step]
    fixed = 8 * row["2x1"]["parameters"] if step == "train" else 0
    temporary = 4 * (four["temporary"] - fixed) / (one["temporary"] - fixed)
    return 4 * four["flops"] / one["flops"], temporary


def table(rows: dict) -> str:
    """The table of all rows."""
    head = ("recipe", "train: operations", "memory", "permutes", "evaluate: operations", "memory")
    cells = []
    for name, row in sorted(rows.items()):
        train, evaluate = ratios(row, "train"), ratios(row, "evaluate")
        permutes = row["2x4"]["train"]["collectives"].get("collective-permute", [0])[0]
        split = [*(f"{r:.2f}" for r in train), str(permutes), *(f"{r:.2f}" for r in evaluate)]
        cells.append((name, *split))
    return pages.table(head, cells)


def page(rows: dict) -> list[str]:
    """The paragraphs of the page."""
    return [
        "# What `mesh.space` leaves a device to do",
        pages.block(COMMAND),
        "Each network recipe, `smoke`, compiled for two images of 512 x 256 on 2 x 4 CPU devices "
        "(data x space) and on 2 x 1: operations and temporary memory of a device, as multiples "
        "of a quarter of those on 2 x 1. 1.00 is an even split, 4.00 none. Training's memory is "
        "less the parameters and their gradients, on both sides; permutes are the exchanges of "
        "borders of a training step. jax 0.10.2, two cores of an x86 machine; 2026-12-01.",
        table(rows),
        _missing(rows),
        "The memory of evaluation is small at these widths, and not all of it is maps: DeepLab v2, "
        "v3 and v3+ take more than 1.45 quarters there, which was not looked into yet. With a CRF "
        "as a layer, its lattice is built on every device: see "
        "[pods](../../../docs/pods.md#full-resolution-without-crops).",
    ]


def networks() -> list[str]:
    """The recipes that name a network."""
    configs = {name: loading.load(name) for name in loading.shipped()}
    return [name for name, config in configs.items() if config.model.backbone.name]


def _missing(rows: dict) -> str:
    """A sentence on the recipes that have no row yet."""
    left = [name for name in networks() if name not in rows]
    return f"Not compiled yet: {', '.join(left)}; the command goes on with them." if left else ""


def main() -> None:
    """Adds the rows that are missing."""
    jax.lax.platform_dependent = lambda *args, default, **_: default(*args)
    rows = json.loads(PATH.read_text()) if PATH.exists() else {}
    for name in sys.argv[1:] or networks():
        if name not in rows:
            rows[name] = {"2x1": steps(name, 2, 1), "2x4": steps(name, 8, 4)}
            PATH.write_text(json.dumps(rows, indent=1) + "\n")
            print(name, *(f"{r:.2f}" for r in ratios(rows[name], "train")), flush=True)
            pages.write(PATH.with_name("README.md"), page(rows))


if __name__ == "__main__":
    main()
