"""Every recipe on CamVid at 360 x 480 on one GPU, so many minutes each:

    SEGJAX_DATA=DIR SEGJAX_WEIGHTS=DIR python -m experiments.records.camvid_gpu.table --hardware=TEXT

A short run tells how many steps the minutes hold, then a new one takes them. Each is a process of
its own, so that the most memory in use is that of one recipe. Writes results.json after every
recipe, beside those that are there, and README.md; PyTorch's images/s come from
experiments/throughput, where `bench` has run on the same GPU. Flags behind `--` go to every run.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

FOLDER = pathlib.Path(__file__).parent
THROUGHPUT = FOLDER.parents[1] / "benchmarks" / "throughput"
RECIPES = {  # recipe -> its network in `bench`
    "fcn8s": "",
    "deeplab_v1_largefov": "",
    "deeplab_v2_vgg_aspp": "",
    "deeplab_v2_resnet101": "",
    "deeplab_v3_resnet50": "deeplab_v3",
    "deeplab_v3_resnet101": "",
    "deeplab_v3plus_resnet50": "",
    "deeplab_v3_mobilenet": "",
    "pspnet_resnet50": "pspnet",
    "pspnet_resnet101": "",
    "segnet": "",
    "segnet_basic": "",
    "bayesian_segnet": "",
    "refinenet_resnet101": "",
    "gcn_resnet50": "",
    "gcn_resnet152": "",
}
# Full resolution and, of FCN-8s, full width; all else is the recipe's.
FLAGS = (
    "--config.input_scale=1.0",
    "--config.augment.size=360,480",
    "--config.dtype=bfloat16",
    "--config.batch_size=16",
    "--config.loader.threads=16",
)
WIDE = ("--config.model.backbone.width=64", "--config.model.backbone.fc_width=4096")
TRIAL = 60  # steps of the run that is timed first


def main() -> None:
    """Trains the recipes in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, a recipe")
    parser.add_argument("--recipes", default=",".join(RECIPES), help="which, with commas between")
    parser.add_argument("flags", nargs="*", help="behind --, of every run")
    given = parser.parse_args()
    path = FOLDER / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for recipe in given.recipes.split(","):
            results[recipe] = measure(recipe, given, pathlib.Path(scratch))
            path.write_text(json.dumps(results, indent=2) + "\n")
            write_page(results)


def measure(recipe: str, given: argparse.Namespace, scratch: pathlib.Path) -> dict[str, Any]:
    """One recipe: steps, minutes, score, images/s, memory."""
    wide = WIDE if recipe == "fcn8s" else ()
    flags = [f"--config=configs/{recipe}.py:camvid", *FLAGS, *wide, *given.flags]
    trial = scratch / f"{recipe}-trial"
    cache = scratch / "compiled"
    run(flags, trial, cache, steps=TRIAL, limit=8)
    steps = round(given.minutes * 60 * rates(trial)[-1] / batch_size(trial))
    workdir = scratch / recipe
    start = time.perf_counter()
    run(flags, workdir, cache, steps=steps)
    minutes = (time.perf_counter() - start) / 60
    evaluated = json.loads((workdir / "eval-val.json").read_text())
    return {
        "command": " ".join(["python -m segjax.main", *flags, f"--config.total_steps={steps}"]),
        "hardware": given.hardware,
        "date": str(datetime.date.today()),
        "versions": evaluated["versions"],
        "steps": steps,
        "batch": batch_size(workdir),
        "minutes": minutes,
        "miou": evaluated["scores"]["miou"],
        "images_per_s": statistics.median(rates(workdir)),
        "peak_gib": max((e.get("train/peak_gib", 0) for e in events(workdir)), default=0),
    }


def run(flags: Sequence[str], workdir: pathlib.Path, cache: pathlib.Path, **limits: int) -> None:
    """Trains for `steps`, evaluating at most `limit` images; keeps what is compiled in `cache`."""
    steps = limits["steps"]
    command = [sys.executable, "-m", "segjax.main", *flags, f"--workdir={workdir}"]
    command += [f"--config.total_steps={steps}", f"--config.eval.limit={limits.get('limit', 0)}"]
    command += [f"--config.every_steps.{key}={steps}" for key in ("eval", "checkpoint")]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True, env=environment, cwd=FOLDER.parents[2])


def events(workdir: pathlib.Path) -> list[dict[str, float]]:
    """The lines of the log."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def rates(workdir: pathlib.Path) -> list[float]:
    """Images/s of every log event, augmentation and loader included."""
    key = "train/images_per_s"
    return [event[key] for event in events(workdir) if key in event]


def batch_size(workdir: pathlib.Path) -> int:
    """As the run folder has it."""
    return json.loads((workdir / "config.json").read_text())["batch_size"]


def write_page(results: Mapping[str, Mapping]) -> None:
    """README.md."""
    head = "recipe|steps of batch|minutes|val mIoU|images/s|PyTorch, images/s|peak GiB"
    lines = [f"| {head.replace('|', ' | ')} |", "|" + "---|" * 7]
    for recipe, found in results.items():
        lines.append(
            f"| {recipe} | {found['steps']} of {found['batch']} | {found['minutes']:.1f} "
            f"| {100 * found['miou']:.2f} | {found['images_per_s']:.1f} "
            f"| {of_pytorch(RECIPES[recipe])} | {found['peak_gib']:.1f} |"
        )
    made = {
        f"{found['hardware']}; {found['date']}; "
        + ", ".join(f"{k} {v}" for k, v in found["versions"].items() if k != "devices")
        for found in results.values()
    }
    parts = [
        "# The recipes on CamVid at 360 x 480, one GPU",
        '```bash\npython -m experiments.records.camvid_gpu.table --hardware="..."\n```',
        "\n\n".join(f"{line}." for line in sorted(made)),
        "\n".join(lines),
        "Weights are drawn, but MobileNetV2's, which are ImageNet's. Minutes are those of the "
        "whole run, start and evaluation included; images/s of training, medians over the log, "
        "with loader and augmentation. PyTorch's are of the training step alone in its fastest "
        "setting ([experiments/throughput](../throughput)). Steps are what the time held: no row "
        "is a finished training.",
    ]
    (FOLDER / "README.md").write_text("\n\n".join(parts) + "\n")


def of_pytorch(name: str) -> str:
    """Its images/s in a training step by `bench`, with the batch."""
    path = THROUGHPUT / f"bench-{name}-cuda.json"
    if not name or not path.exists():
        return "-"
    result = json.loads(path.read_text())
    batch = result["setting"]["batch"]
    rate = batch / statistics.median(result["seconds"]["train"]["pytorch"])
    return f"{rate:.1f} ({result['pytorch_chosen']['train']}; batch {batch})"


if __name__ == "__main__":
    main()
