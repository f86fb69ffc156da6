"""The decoders of SegNet's table 1 on CamVid at 360 x 480, on one GPU, so many minutes each:

    SEGJAX_DATA=DIR python -m experiments.records.segnet.decoders --hardware=TEXT

The tutorial's training (`configs/segnet_basic.py:camvid,paper`), for as many steps as the minutes
hold: a short run tells how many. Then the norms' statistics are estimated again over the training
set, as the release does, and the test split is scored. Writes decoders.json after every decoder,
and decoders.md. Flags behind `--` go to every run.
"""

import argparse
import datetime
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.records.camvid_gpu import table

FOLDER = pathlib.Path(__file__).parent
DECODERS = {  # word of the recipe -> name, and published mIoU and boundary F1 (PAMI 2017, table 1)
    "": ("SegNet-Basic", 47.7, 35.78),
    "single_channel": ("SegNet-Basic-SingleChannelDecoder", None, None),
    "fcn_basic": ("FCN-Basic", 47.3, 38.11),
    "bilinear": ("Bilinear-Interpolation", 43.3, 20.83),
}
TRIAL = 60  # steps of the run that is timed first


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
        for word in DECODERS:
            results[DECODERS[word][0]] = measure(word, given, pathlib.Path(scratch))
            path.write_text(json.dumps(results, indent=2) + "\n")
            write_page(results)


def measure(word: str, given: argparse.Namespace, scratch: pathlib.Path) -> dict[str, Any]:
    """One decoder: steps, scores of the test split."""
    words = ",".join(filter(None, ("camvid", "paper", word)))
    flags = [f"--config=configs/segnet_basic.py:{words}", *given.flags]
    trial, workdir = scratch / f"{word}-trial", scratch / f"{word}-run"
    cache = scratch / "compiled"
    table.run(flags, trial, cache, steps=TRIAL, limit=8)
    steps = round(given.minutes * 60 * table.rates(trial)[-1] / table.batch_size(trial))
    table.run(flags, workdir, cache, steps=steps)
    evaluate = [sys.executable, "-m", "segjax.evaluate", f"--workdir={workdir}", "--split=test"]
    subprocess.run([*evaluate, "--statistics=train"], check=True, cwd=FOLDER.parents[2])
    found = json.loads((workdir / "eval-test-statistics.json").read_text())
    return {
        "command": " ".join(["python -m segjax.main", *flags, f"--config.total_steps={steps}"]),
        "hardware": given.hardware,
        "date": str(datetime.date.today()),
        "versions": found["versions"],
        "steps": steps,
        "scores": found["scores"],
        "boundary_f1": found["boundary_f1"]["mean"],
    }


def write_page(results: Mapping[str, Mapping]) -> None:
    """decoders.md."""
    head = ("decoder", "steps", "mIoU", "boundary F1", "published mIoU", "published boundary F1")
    rows: list[Sequence[Any]] = []
    for name, miou, f1 in DECODERS.values():
        if name in results:
            found = results[name]
            ours = (f"{100 * found['scores']['miou']:.2f}", f"{100 * found['boundary_f1']:.2f}")
            rows.append((name, found["steps"], *ours, miou or "", f1 or ""))
    made = {f"{r['hardware']}; {r['date']}; jax {r['versions']['jax']}" for r in results.values()}
    parts = [
        "# The decoders of SegNet's table 1, CamVid test at 360 x 480",
        '```bash\npython -m experiments.records.segnet.decoders --hardware="..."\n```',
        "\n\n".join(f"{line}." for line in sorted(made)),
        "\n".join(
            f"| {' | '.join(map(str, row))} |" for row in (head, ("---",) * len(head), *rows)
        ),
        "Steps are what the time held; the published rows were trained until convergence. Boundary "
        "F1 is ours, by image and class, at 0.75 % of the diagonal.",
    ]
    (FOLDER / "decoders.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
