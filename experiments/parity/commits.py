"""Two commits held against each other: the same parameters, losses, logits and label maps?

    python -m experiments.parity.commits --old=DIR [--new=DIR] --output=DIR [--recipes=fcn8s,slic]

`--old` is a checkout of commit 26ab59c, `--new` one of a later commit (this one by default). Every
network recipe is trained for 20 steps of its smoke form by both, every classical recipe labels the
same photograph. Losses, evaluations, all numbers of the train state, and logits on one image must
be equal bit for bit, and so must label maps. Programs are kept in one compilation cache, so that
the second checkout compiles only what differs. Writes commits.json and commits.md into `--output`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np

from experiments.shared import pages
from segjax import files
from segjax.data import catalog
from segjax.runs import event_log

CLASSICAL = ("felzenszwalb", "grabcut", "kmeans", "ncut_regions", "slic", "spectral")
PRETRAINED = ("deeplab_v3_mobilenet_voc", "imagenet_heatmap")
STEPS = 20

_PROBE = """
import pathlib, sys
import jax, numpy as np
workdir, output = map(pathlib.Path, sys.argv[1:])
image = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3)).astype(np.float32)
{body}
np.savez(output, logits=np.asarray(scores.values), **arrays)
"""
_BODIES = {
    "old": """
from segjax import experiment, transfer
parts, ts, _ = experiment.restore(workdir, "latest")
scores = jax.jit(parts.network)(ts.params, ts.batch_stats, image)
arrays = {p: np.asarray(x) for p, x in transfer.flatten(ts.params, ts.batch_stats).items()}
""",
    "new": """
from segjax import network
net = network.load(workdir, "latest").network
scores = jax.jit(network.Network.__call__)(net, image)
arrays = net.arrays()
""",
}


def main() -> None:
    """Runs both sides of every recipe, one after the other, and says what differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--old", required=True, type=pathlib.Path, help="checkout of 26ab59c")
    parser.add_argument("--new", default=pages.ROOT, type=pathlib.Path, help="another checkout")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="runs and results")
    parser.add_argument("--recipes", default="", help="names, with commas between; all by default")
    parser.add_argument("--page", action="store_true", help="write commits.json and .md here, too")
    given = parser.parse_args()
    output, sides = given.output, {"old": given.old, "new": given.new}
    image, rows = _photograph(output / "scene.png"), {}
    for recipe in given.recipes.split(",") if given.recipes else _all(sides["new"]):
        folders = {side: output / side / recipe for side in sides}
        for side, checkout in sides.items():
            if recipe in CLASSICAL:
                _label(checkout, recipe, image, folders[side], output)
            else:
                _train(side, checkout, recipe, folders[side], output)
        compare = _label_maps if recipe in CLASSICAL else _trainings
        rows[recipe] = compare(*folders.values())
        print(recipe, rows[recipe], flush=True)
        files.write_json(output / "commits.json", _result(sides, rows))
    if given.page:
        _write_page(_result(sides, rows))


def _all(checkout: pathlib.Path) -> list[str]:
    stems = sorted(path.stem for path in (checkout / "configs").glob("*.py"))
    return [stem for stem in stems if stem not in ("__init__", "default", *PRETRAINED)]


def _photograph(path: pathlib.Path) -> pathlib.Path:
    """A scene of 240 x 320 as a file, for the classical methods."""
    image, _ = catalog.load("scenes", size=(240, 320)).splits["val"][3]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return path


def _run(checkout: pathlib.Path, output: pathlib.Path, *command: str) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "JAX_COMPILATION_CACHE_DIR": str(output / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    subprocess.run([sys.executable, *command], cwd=checkout, env=environment, check=True)


def _train(side: str, checkout, recipe: str, folder: pathlib.Path, output: pathlib.Path) -> None:
    """Trains the smoke form, and writes the logits on one image beside the run folder."""
    logits = folder.with_suffix(".npz")
    if logits.exists():
        return
    every = [f"--config.every_steps.{key}={STEPS}" for key in ("eval", "checkpoint")]
    _run(
        checkout, output, "-m", "segjax.main", f"--config=configs/{recipe}.py:smoke",
        f"--config.total_steps={STEPS}", *every, f"--workdir={folder}",
    )  # fmt: skip
    _run(checkout, output, "-c", _PROBE.format(body=_BODIES[side]), str(folder), str(logits))


def _label(checkout, recipe: str, image: pathlib.Path, folder: pathlib.Path, output) -> None:
    """Labels the photograph by a classical method."""
    if not (folder / f"{image.stem}.png").exists():
        box = ["--config.predict.box=40,60,200,260"] if recipe == "grabcut" else []
        _run(
            checkout, output, "-m", "segjax.predict", f"--config=configs/{recipe}.py", *box,
            f"--input={image}", f"--output={folder}",
        )  # fmt: skip


def _label_maps(old: pathlib.Path, new: pathlib.Path) -> dict:
    """Whether label maps are equal."""
    maps = [cv2.imread(str(folder / "scene.png"), cv2.IMREAD_UNCHANGED) for folder in (old, new)]
    return {"regions": int(maps[0].max()) + 1, "labels": bool(np.array_equal(*maps))}


def _trainings(old: pathlib.Path, new: pathlib.Path) -> dict:
    """Whether losses, evaluations, states and logits are equal."""
    events = [event_log.read(folder) for folder in (old, new)]
    losses = [[e["train/loss"] for e in found if "train/loss" in e] for found in events]
    scores = [[e["eval/miou"], e["eval/loss"], e["eval/ece"]] for e in (f[-1] for f in events)]
    states = [json.loads((f / "eval-val.json").read_text())["checkpoint"] for f in (old, new)]
    arrays = [np.load(folder.with_suffix(".npz")) for folder in (old, new)]
    weights = sorted(arrays[0].files) == sorted(arrays[1].files) and all(
        np.array_equal(arrays[0][key], arrays[1][key]) for key in arrays[0].files
    )
    return {
        "parameters": sum(arrays[0][key].size for key in arrays[0].files if key != "logits"),
        "losses": len(losses[0]) == STEPS and losses[0] == losses[1],
        "scores": scores[0] == scores[1],
        "state": states[0] == states[1],
        "weights and logits": bool(weights),
    }


def _result(sides: dict[str, pathlib.Path], rows: dict) -> dict:
    command = "python -m experiments.parity.commits --old=DIR --output=DIR --page"
    hardware = f"{os.cpu_count()} CPU cores"
    commits = {side: pages.commit(checkout) for side, checkout in sides.items()}
    return {**pages.circumstances(command, hardware), "commits": commits, "recipes": rows}


def _write_page(result: dict) -> None:
    folder = pathlib.Path(__file__).parent
    files.write_json(folder / "commits.json", result)
    networks = {k: v for k, v in result["recipes"].items() if "state" in v}
    checks = ("losses", "scores", "state", "weights and logits")
    lines = [
        "# Commit by commit",
        "",
        f"The rebuilt house (`{result['commits']['new']}`) beside commit "
        f"`{result['commits']['old']}`: every network recipe trained for {STEPS} steps of its "
        "smoke form, every classical recipe on one scene of 240 x 320. Equal means bit for bit: "
        f"all {STEPS} losses; mIoU, loss and calibration error of the evaluation; the fingerprint "
        "of the whole train state; every weight, and the logits of two images.",
        "",
        f"| recipe | numbers in the smoke form | {' | '.join(checks)} |",
        "|---|---|" + "---|" * len(checks),
    ]
    for name, row in networks.items():
        cells = ["equal" if row[key] else "**differs**" for key in checks]
        lines.append(f"| `{name}` | {row['parameters']:,} | {' | '.join(cells)} |")
    lines += ["", "| classical recipe | regions | label map |", "|---|---|---|"]
    for name, row in result["recipes"].items():
        if name not in networks:
            text = "equal" if row["labels"] else "**differs**"
            lines.append(f"| `{name}` | {row['regions']} | {text} |")
    lines += [
        "",
        pages.block(result["command"]),
        "",
        f"{result['hardware']}; {result['date']}; {pages.software(result['versions'])}. "
        f"{pages.made(result, result['command'])}",
        "",
    ]
    files.write_text(folder / "commits.md", "\n".join(lines))


if __name__ == "__main__":
    main()
