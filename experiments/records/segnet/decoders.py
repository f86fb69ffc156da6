"""The decoders of SegNet's table 1 on CamVid at 360 x 480, on one GPU, a few minutes each.

    SEGJAX_DATA=DIR python -m experiments.records.segnet.decoders --hardware=TEXT

The training is the tutorial's (`segnet_basic:camvid,paper`), for as many steps as the minutes hold:
a short run tells the number. Then the norms' statistics are estimated again over the training set,
as the release does, and the test split is scored. Writes decoders.json after every decoder, and
decoders.md. Flags behind `--` go to every run.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from experiments.shared import pages, runs
from segjax import files

FOLDER = pathlib.Path(__file__).parent
DECODERS = {  # word of the recipe -> name, and published mIoU and boundary F1 (PAMI 2017, table 1)
    "": ("SegNet-Basic", 47.7, 35.78),
    "single_channel": ("SegNet-Basic-SingleChannelDecoder", None, None),
    "fcn_basic": ("FCN-Basic", 47.3, 38.11),
    "bilinear": ("Bilinear-Interpolation", 43.3, 20.83),
}
TRIAL = 60  # steps of the run that is timed first
COMMAND = 'python -m experiments.records.segnet.decoders --hardware="..."'
HEAD = ("decoder", "steps", "mIoU", "boundary F1", "published mIoU", "published boundary F1")


def main() -> None:
    """Trains the decoders in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, a decoder")
    parser.add_argument("flags", nargs="*", help="behind --, of every run")
    given = parser.parse_args()
    path = FOLDER / "decoders.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for word, (name, *_) in DECODERS.items():
            results[name] = measure(word, given, pathlib.Path(scratch))
            files.write_json(path, results)
            pages.write(FOLDER / "decoders.md", page(results))


def measure(word: str, given: argparse.Namespace, scratch: pathlib.Path) -> dict[str, Any]:
    """One decoder: steps, scores of the test split."""
    words = ",".join(filter(None, ("camvid", "paper", word)))
    flags = [f"--config=segnet_basic:{words}", *given.flags]
    trial, workdir = scratch / f"{word}-trial", scratch / f"{word}-run"
    cache = scratch / "compiled"
    runs.train(flags, trial, cache, steps=TRIAL, limit=8)
    steps = round(given.minutes * 60 * runs.rates(trial)[-1] / runs.batch_size(trial))
    runs.train(flags, workdir, cache, steps=steps)
    evaluate = [sys.executable, "-m", "segjax.evaluate", f"--workdir={workdir}", "--split=test"]
    subprocess.run([*evaluate, "--statistics=train"], check=True, cwd=pages.ROOT)
    stored = json.loads((workdir / "eval-test-statistics.json").read_text())
    command = " ".join(["python -m segjax.main", *flags, f"--config.total_steps={steps}"])
    return pages.circumstances(command, given.hardware) | {
        "versions": stored["versions"],
        "steps": steps,
        "scores": stored["scores"],
        "boundary_f1": stored["boundary_f1"]["mean"],
    }


def page(results: Mapping[str, Mapping]) -> list[str]:
    """The paragraphs of the page."""
    rows = []
    for name, miou, f1 in DECODERS.values():
        if name in results:
            row = results[name]
            ours = [f"{100 * row['scores']['miou']:.2f}", f"{100 * row['boundary_f1']:.2f}"]
            rows.append([name, str(row["steps"]), *ours, str(miou or ""), str(f1 or "")])
    made = {
        f"{row['hardware']}; {row['date']}; commit {row['commit']}; jax {row['versions']['jax']}."
        for row in results.values()
    }
    return [
        "# The decoders of SegNet's table 1, CamVid test at 360 x 480",
        pages.block(COMMAND),
        *sorted(made),
        pages.table(HEAD, rows),
        "Steps are what the time held; the published rows were trained until convergence. Boundary "
        "F1 is ours, by image and class, at 0.75 % of the diagonal.",
    ]


if __name__ == "__main__":
    main()
