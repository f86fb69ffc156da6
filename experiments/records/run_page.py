"""Writes what a run gave into a folder of experiments/: a page, its pictures, its numbers.

    python experiments/record.py --workdir=runs/fcn8s --output=experiments/scenes \
        --command="python -m segjax.main --config=configs/fcn8s.py" --hardware="2 CPU cores"
"""

import argparse
import datetime
import json
import pathlib
import shutil
import subprocess

import numpy as np


def main() -> None:
    """Reads the run folder; nothing is typed in by hand but the command and the hardware."""
    parser = argparse.ArgumentParser()
    for flag in ("workdir", "output", "command", "hardware"):
        parser.add_argument(f"--{flag}", required=True)
    parser.add_argument("--note", default="", help="a sentence on what is special")
    given = parser.parse_args()
    workdir, output = pathlib.Path(given.workdir), pathlib.Path(given.output)
    output.mkdir(parents=True, exist_ok=True)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    evaluations = [e for e in events if "eval/miou" in e]
    files = [workdir / f"eval-{split}.json" for split in ("test", "val")]  # by the own protocol
    files = [path for path in files if path.exists()]
    results = [json.loads(path.read_text()) for path in files]
    copy_pictures(workdir / "pictures", output, evaluations[-1]["step"])
    for path in files:
        shutil.copy(path, output)
    (output / "config.json").write_text((workdir / "config.json").read_text())
    (output / "README.md").write_text(page(given, events, evaluations, results))


def copy_pictures(pictures: pathlib.Path, output: pathlib.Path, step: int) -> None:
    """The last panel, the class chart and the curves."""
    shutil.copy(pictures / f"eval-{step:07d}.png", output / "panel.png")
    shutil.copy(pictures / "eval-iou.png", output / "iou.png")
    shutil.copy(pictures / "curves.png", output / "curves.png")


def page(given, events: list[dict], evaluations: list[dict], results: list[dict]) -> str:
    """The page in Markdown."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    date = datetime.date.fromtimestamp(events[-1]["time"])
    versions = results[0]["versions"]
    software = ", ".join(f"{k} {v}" for k, v in versions.items() if not k.startswith("device"))
    rates = [e["train/images_per_s"] for e in events if "train/images_per_s" in e]
    waits = [e["train/data_wait"] for e in events if "train/data_wait" in e]
    minutes = (events[-1]["time"] - events[0]["time"]) / 60
    parts = [
        f"# {pathlib.Path(given.output).name}",
        f"```bash\n{given.command}\n```",
        f"{given.hardware}; {date}; {software}; recorded at commit {commit}. {given.note}".strip(),
        f"{events[-1]['step']} steps in {minutes:.0f} minutes, evaluations included; medians: "
        f"{np.median(rates):.1f} images/s, {100 * np.median(waits):.1f} % of the time waiting for "
        "data.",
        *(section(result) for result in results),
        "## On the way\n\n| step | mIoU | pixel accuracy | loss |\n|---|---|---|---|\n"
        + "\n".join(
            f"| {e['step']} | {100 * e['eval/miou']:.2f} | {100 * e['eval/pixel_accuracy']:.2f} "
            f"| {e['eval/loss']:.4f} |"
            for e in evaluations
        ),
        "![examples](panel.png)\n\n![IoU by class](iou.png)\n\n![curves](curves.png)",
    ]
    return "\n\n".join(parts) + "\n"


def section(result: dict) -> str:
    """One split's scores and its per-class table."""

    def percent(value) -> str:
        return value if isinstance(value, str) else f"{100 * value:.2f}"

    scores, protocol = result["scores"], result["protocol"]
    rows = [
        f"| {name} | {percent(iou)} | {percent(result['accuracy'][name])} |"
        for name, iou in result["iou"].items()
    ]
    above = ", ".join(
        f"{sum(not isinstance(v, str) and v > bar for v in result['iou'].values())} above {bar}"
        for bar in (0.3, 0.4)
    )
    seen = f"at scale {protocol['input_scale']}"
    if any(protocol["input_size"]):
        seen = "of {} x {}".format(*protocol["input_size"])
    return (
        f"## {protocol['split']}, step {result['step']}, {result['weights']} weights\n\n"
        f"mIoU **{percent(scores['miou'])}** over {result['classes_counted']} classes ({above}), "
        f"pixel accuracy {percent(scores['pixel_accuracy'])}, mean accuracy "
        f"{percent(scores['mean_accuracy'])}, frequency-weighted IoU {percent(scores['fwiou'])}; "
        f"{result['examples']} images, network input {seen}, protocol "
        f"{protocol['views']['name']}.\n\n"
        "| class | IoU % | accuracy % |\n|---|---|---|\n" + "\n".join(rows)
    )


if __name__ == "__main__":
    main()
