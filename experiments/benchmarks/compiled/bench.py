"""Every network recipe's steps, compiled by the chips' own compilers; and beside an earlier commit.

    python -m experiments.benchmarks.compiled.bench --width=smoke --chips=v5e,v5p,v6e,h200
    python -m experiments.benchmarks.compiled.bench --width=full --chips=v5e,h200 [--old=DIR]

The first compiles the training and the evaluation step of every recipe at `smoke` width. The second
compiles those of the eight networks of EIGHT at full width, for images of 360 x 480; with --old it
compiles the training step of a checkout of an earlier commit instead. All in bfloat16, without a
device. --python=TPU=PATH or CUDA=PATH names the environment with libtpu or jax's CUDA build (it has
the project, too); where one is missing its rows are left for another time. Each row is written to
compiled.json as soon as it is known, and README.md; rows that are there are not made again.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping

from experiments.shared import pages
from segjax import files, units
from segjax.compilers import chips
from segjax.configuration import loading

COMMAND = "python -m experiments.benchmarks.compiled.bench --width=full --chips=v5e,h200"
FOLDER = pathlib.Path(__file__).parent
PATH = FOLDER / "compiled.json"
EIGHT = {
    "fcn8s": "FCN-8s",
    "segnet": "SegNet",
    "deeplab_v1_largefov": "DeepLab v1 (LargeFOV)",
    "deeplab_v2_resnet101": "DeepLab v2 (ResNet-101, three scales)",
    "deeplab_v3_resnet50": "DeepLab v3 (ResNet-50)",
    "pspnet_resnet50": "PSPNet (ResNet-50)",
    "refinenet_resnet101": "RefineNet (ResNet-101)",
    "gcn_resnet50": "GCN (ResNet-50)",
}
STEPS = ("train", "evaluate")


def main() -> None:
    """Adds the rows that are missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", choices=("smoke", "full"), default="full")
    parser.add_argument("--chips", default="v5e,h200")
    parser.add_argument("--old", type=pathlib.Path, help="a checkout of an earlier commit")
    parser.add_argument("--python", action="append", default=[], help="TPU=PATH or CUDA=PATH")
    parser.add_argument("--only", default="", help="recipes, with commas")
    given = parser.parse_args()
    pythons = {"tpu": sys.executable, "cuda": sys.executable}
    pythons |= {kind.lower(): path for kind, path in (p.split("=", 1) for p in given.python)}
    side = pages.commit(given.old) if given.old else "now"
    steps = STEPS[:1] if given.old else STEPS
    names = given.only.split(",") if given.only else recipes(given.width)
    wanted = [(n, c, step) for c in given.chips.split(",") for n in names for step in steps]
    for number, (name, chip, step) in enumerate(wanted, 1):
        key = "/".join((given.width, side, chip, name, step))
        if key in stored():
            continue
        python = pythons[chips.CHIPS[chip].platform]
        row = compiled(python, given.old or pages.ROOT, (name, chip, given.width, step, "{}"))
        if row is not None:
            row["commit"] = pages.commit(given.old or pages.ROOT)
            files.write_json(PATH, dict(sorted((stored() | {key: row}).items())))
            pages.write(FOLDER / "README.md", page(stored()))
        told = f"{row['cpu_seconds']:.0f} s of CPU" if row else "the compiler is not there"
        print(f"{number}/{len(wanted)} {key}: {told}", flush=True)


def recipes(width: str) -> list[str]:
    """The recipes of a width."""
    if width == "full":
        return list(EIGHT)
    configs = {name: loading.load(name) for name in loading.shipped()}
    return [name for name, config in configs.items() if config.model.backbone.name]


def stored() -> dict[str, dict]:
    """width/commit/chip/recipe/step -> its row; other processes may add some meanwhile."""
    return json.loads(PATH.read_text()) if PATH.exists() else {}


def compiled(python: str, checkout: pathlib.Path, arguments: tuple[str, ...]) -> dict | None:
    """A row, made in a process of its own; None where the chip's compiler is not installed.

    Raises:
        SystemExit: if a compiler ended with an error, which is shown.
    """
    paths = os.pathsep.join(map(str, (checkout, os.environ.get("PYTHONPATH", ""))))
    environment = os.environ | {
        "PYTHONPATH": paths,
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    command = [python, str(FOLDER / "program.py"), *arguments]
    # Not in the folder of this clone, whose segjax would come before the other's.
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
    if "pip install" in done.stderr:
        return None
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr[-4000:]}")
    row: dict = json.loads(done.stdout.splitlines()[-1])
    return row


def page(rows: Mapping[str, dict]) -> list[str]:
    """The paragraphs of the page."""
    return [
        "# Programs as the chips' compilers make them",
        pages.block(
            COMMAND,
            f"{COMMAND} --old=DIR",
            "python -m experiments.benchmarks.compiled.bench --width=smoke "
            "--chips=v5e,v5p,v6e,h200",
        ),
        "Compiled without a device, for one chip, in bfloat16; jax 0.10.2, libtpu 0.0.42, CUDA 12 "
        "without autotuning; two cores of an x86 machine, 2026-12-01. Nothing here was timed on a "
        "chip. Bytes are the operands and results of all instructions outside of fusions: of an "
        "operand that is sliced the slice, and nothing of what a TPU keeps in its core's memory. "
        "They say where time must go, not how long it takes.",
        "## A training step at full width, beside an earlier commit",
        *_beside(rows),
        "## Steps at full width",
        _table(rows, "full"),
        *_smoke(rows),
    ]


def _smoke(rows: Mapping[str, dict]) -> list[str]:
    """The section of all recipes, once there are some."""
    if not any(key.startswith("smoke/") for key in rows):
        return []
    return [
        "## Every network recipe at `smoke` width",
        "Images of 48 x 64; what is shown is that the compilers take the programs.",
        _table(rows, "smoke"),
    ]


def _beside(rows: Mapping[str, dict]) -> list[str]:
    """The tables of both commits, one a chip."""
    head = ("network", "GB moved before", "now", "change", "GiB temporary before", "now")
    parts = []
    commits = {key.split("/")[1] for key in rows} - {"now"}
    for commit in sorted(commits):
        for chip in sorted({key.split("/")[2] for key in rows}):
            cells = []
            for name, title in EIGHT.items():
                pair = [rows.get(f"full/{s}/{chip}/{name}/train") for s in (commit, "now")]
                if None in pair or any(row["refused"] for row in pair):
                    continue
                a, b = pair
                change = f"{100 * (b['bytes'] / a['bytes'] - 1):+.1f} %"
                moved = [f"{row['bytes'] / 1e9:.2f}" for row in pair]
                memory = [f"{row['temporary'] / 2**30:.2f}" for row in pair]
                cells.append((title, *moved, change, *memory))
            if cells:
                images = b["images"]
                parts += [f"{chip}, {images} images of 360 x 480, beside {commit}:"]
                parts += [pages.table(head, cells)]
    return parts


def _table(rows: Mapping[str, dict], width: str) -> str:
    """All rows of a width."""
    head = ("recipe", "chip", "step", "state", "temporary", "products", "moved", "CPU s to compile")
    cells = []
    for key, row in rows.items():
        at, commit, chip, name, step = key.split("/")
        if (at, commit) != (width, "now"):
            continue
        needs = ["refused: too little memory", "", "", ""]
        if not row["refused"]:
            needs = [
                f"{row['state'] / 2**20:.0f} MiB",
                f"{row['temporary'] / 2**20:.0f} MiB",
                f"{units.si(row['flops'], 'FLOP')}",
                f"{units.si(row['bytes'], 'B')}",
            ]
        cells.append((name, chip, step, *needs, f"{row['cpu_seconds']:.0f}"))
    return pages.table(head, cells)


if __name__ == "__main__":
    main()
