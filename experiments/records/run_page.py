"""Writes the record of a training: a folder of records/ with a page, its pictures and its numbers.

    python -m experiments.records.run_page --workdir=runs/fcn8s \
        --output=experiments/records/scenes --hardware="2 CPU cores" \
        --command="python -m segjax.main --config=fcn8s"
"""

import argparse
import datetime
import json
import pathlib
import shutil

import numpy as np

from experiments.shared import pages


def main() -> None:
    """Reads the run folder; only the command, the hardware and the note are typed in."""
    parser = argparse.ArgumentParser()
    for flag in ("workdir", "output", "command", "hardware"):
        parser.add_argument(f"--{flag}", required=True)
    parser.add_argument("--note", default="", help="a sentence on what is special")
    given = parser.parse_args()
    workdir, output = pathlib.Path(given.workdir), pathlib.Path(given.output)
    output.mkdir(parents=True, exist_ok=True)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    evaluations = [event for event in events if "eval/miou" in event]
    stored = [workdir / f"eval-{split}.json" for split in ("test", "val")]  # the run's protocol
    stored = [path for path in stored if path.exists()]
    results = [json.loads(path.read_text()) for path in stored]
    copy_pictures(workdir / "pictures", output, evaluations[-1]["step"])
    for path in (*stored, workdir / "config.json"):
        shutil.copy(path, output)
    pages.write(output / "README.md", page(given, events, evaluations, results))


def copy_pictures(pictures: pathlib.Path, output: pathlib.Path, step: int) -> None:
    """The last panel, the class chart and the curves."""
    shutil.copy(pictures / f"eval-{step:07d}.png", output / "panel.png")
    shutil.copy(pictures / "eval-iou.png", output / "iou.png")
    shutil.copy(pictures / "curves.png", output / "curves.png")


def page(
    given: argparse.Namespace, events: list[dict], evaluations: list[dict], results: list[dict]
) -> list[str]:
    """The paragraphs of the page."""
    date = datetime.date.fromtimestamp(events[-1]["time"])
    software = pages.software(results[0]["versions"], device=False)
    rates = [e["train/images_per_s"] for e in events if "train/images_per_s" in e]
    waits = [e["train/data_wait"] for e in events if "train/data_wait" in e]
    minutes = (events[-1]["time"] - events[0]["time"]) / 60
    where = f"{given.hardware}; {date}; {software}; recorded at commit {pages.commit()}."
    rows = [
        [
            str(event["step"]),
            f"{100 * event['eval/miou']:.2f}",
            f"{100 * event['eval/pixel_accuracy']:.2f}",
            f"{event['eval/loss']:.4f}",
        ]
        for event in evaluations
    ]
    return [
        f"# {pathlib.Path(given.output).name}",
        pages.block(given.command),
        f"{where} {given.note}".strip(),
        f"{events[-1]['step']} steps in {minutes:.0f} minutes, evaluations included; medians: "
        f"{np.median(rates):.1f} images/s, {100 * np.median(waits):.1f} % of the time waiting for "
        "data.",
        *(part for result in results for part in section(result)),
        "## On the way",
        pages.table(["step", "mIoU", "pixel accuracy", "loss"], rows),
        "![examples](panel.png)",
        "![IoU by class](iou.png)",
        "![curves](curves.png)",
    ]


def section(result: dict) -> list[str]:
    """One split: its scores, and a table of the classes."""

    def percent(value: float | str) -> str:
        return value if isinstance(value, str) else f"{100 * value:.2f}"

    scores, protocol = result["scores"], result["protocol"]
    above = ", ".join(
        f"{sum(not isinstance(iou, str) and iou > bar for iou in result['iou'].values())} "
        f"above {bar}"
        for bar in (0.3, 0.4)
    )
    seen = f"at scale {protocol['input_scale']}"
    if any(protocol["input_size"]):
        seen = "of {} x {}".format(*protocol["input_size"])
    rows = [
        [name, percent(iou), percent(result["accuracy"][name])]
        for name, iou in result["iou"].items()
    ]
    return [
        f"## {protocol['split']}, step {result['step']}, {result['weights']} weights",
        f"mIoU **{percent(scores['miou'])}** over {result['classes_counted']} classes ({above}), "
        f"pixel accuracy {percent(scores['pixel_accuracy'])}, mean accuracy "
        f"{percent(scores['mean_accuracy'])}, frequency-weighted IoU {percent(scores['fwiou'])}; "
        f"{result['examples']} images, network input {seen}, protocol "
        f"{protocol['views']['name']}.",
        pages.table(["class", "IoU %", "accuracy %"], rows),
    ]


if __name__ == "__main__":
    main()
