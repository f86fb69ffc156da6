"""Every recipe on CamVid at 360 x 480 on one GPU, a few minutes each.

    SEGJAX_DATA=DIR SEGJAX_WEIGHTS=DIR python -m experiments.records.camvid_gpu.table \
        --hardware=TEXT

A short run tells the number of steps that fit into the minutes; then a new run takes them. Each is
a process of its own, so the peak memory is that of one recipe. Writes results.json after every
recipe, beside the results that are there, and README.md; PyTorch's images/s come from
experiments/benchmarks/throughput, where `bench` has run on the same GPU. Flags behind `--` go to
every run.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from experiments.shared import pages, runs
from segjax import files

FOLDER = pathlib.Path(__file__).parent
THROUGHPUT = pages.ROOT / "experiments" / "benchmarks" / "throughput"
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
# On CamVid recipes have the papers' widths and crops of 360 x 480; the rest is alike for all.
FLAGS = (
    "--config.dtype=bfloat16",
    "--config.batch_size=16",
    "--config.loader.threads=16",
)
TRIAL = 60  # steps of the run that is timed first
COMMAND = 'python -m experiments.records.camvid_gpu.table --hardware="..."'
HEAD = (
    "recipe",
    "steps of batch",
    "minutes",
    "val mIoU",
    "images/s",
    "PyTorch, images/s",
    "peak GiB",
)


def main() -> None:
    """Trains the recipes in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, a recipe")
    parser.add_argument("--recipes", default=",".join(RECIPES), help="names, with commas between")
    parser.add_argument("flags", nargs="*", help="behind --, of every run")
    given = parser.parse_args()
    path = FOLDER / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for recipe in given.recipes.split(","):
            results[recipe] = measure(recipe, given, pathlib.Path(scratch))
            files.write_json(path, results)
            pages.write(FOLDER / "README.md", page(results))


def measure(recipe: str, given: argparse.Namespace, scratch: pathlib.Path) -> dict[str, Any]:
    """One recipe: steps, minutes, score, images/s, memory."""
    flags = [f"--config={recipe}:camvid", *FLAGS, *given.flags]
    trial, workdir, cache = scratch / f"{recipe}-trial", scratch / recipe, scratch / "compiled"
    runs.train(flags, trial, cache, steps=TRIAL, limit=8)
    steps = round(given.minutes * 60 * runs.rates(trial)[-1] / runs.batch_size(trial))
    start = time.perf_counter()
    runs.train(flags, workdir, cache, steps=steps)
    minutes = (time.perf_counter() - start) / 60
    evaluated = json.loads((workdir / "eval-val.json").read_text())
    command = " ".join(["python -m segjax.main", *flags, f"--config.total_steps={steps}"])
    peaks = [event.get("train/peak_gib", 0) for event in runs.events(workdir)]
    return pages.circumstances(command, given.hardware) | {
        "versions": evaluated["versions"],
        "steps": steps,
        "batch": runs.batch_size(workdir),
        "minutes": minutes,
        "miou": evaluated["scores"]["miou"],
        "images_per_s": statistics.median(runs.rates(workdir)),
        "peak_gib": max(peaks, default=0),
    }


def page(results: Mapping[str, Mapping]) -> list[str]:
    """The paragraphs of the page."""
    rows = [
        [
            recipe,
            f"{row['steps']} of {row['batch']}",
            f"{row['minutes']:.1f}",
            f"{100 * row['miou']:.2f}",
            f"{row['images_per_s']:.1f}",
            of_pytorch(RECIPES[recipe]),
            f"{row['peak_gib']:.1f}",
        ]
        for recipe, row in results.items()
    ]
    made = {
        f"{row['hardware']}; {row['date']}; commit {row['commit']}; "
        f"{pages.software(row['versions'])}."
        for row in results.values()
    }
    return [
        "# The recipes on CamVid at 360 x 480, one GPU",
        pages.block(COMMAND),
        *sorted(made),
        pages.table(HEAD, rows),
        "Weights are drawn, but MobileNetV2's, which are ImageNet's. Minutes are those of the "
        "whole run, start and evaluation included; images/s of training, medians over the log, "
        "with loader and augmentation. PyTorch's are of the training step alone in its fastest "
        "setting ([benchmarks/throughput](../../benchmarks/throughput)). Steps are what the time "
        "held: no row is a finished training.",
    ]


def of_pytorch(name: str) -> str:
    """PyTorch's images/s in a training step by `bench`, with the batch."""
    path = THROUGHPUT / f"bench-{name}-cuda.json"
    if not name or not path.exists():
        return "-"
    result = json.loads(path.read_text())
    batch = result["setting"]["batch"]
    rate = batch / statistics.median(result["seconds"]["train"]["pytorch"])
    return f"{rate:.1f} ({result['pytorch_chosen']['train']}; batch {batch})"


if __name__ == "__main__":
    main()
