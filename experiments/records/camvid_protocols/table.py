"""A table of runs under several protocols, from what `segjax.evaluate` stored in their folders.

    python -m experiments.records.camvid_protocols.table --output=experiments/camvid_protocols.md \
        --hardware="2 CPU cores" runs/a runs/b
"""

import argparse
import json
import pathlib

import numpy as np

from segjax.metrics import bootstrap


def main() -> None:
    """Reads every eval-*.json and its .npz, writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--note", default="")
    given = parser.parse_args()
    parts, versions = [], {}
    for workdir in given.workdirs:
        found = {p: json.loads(p.read_text()) for p in sorted(workdir.glob("eval-*.json"))}
        found = {p: fields for p, fields in found.items() if "miou_interval" in fields}
        for split in ("val", "test"):
            rows = {p: f for p, f in found.items() if f["protocol"]["split"] == split}
            if rows:
                parts.append(section(workdir, split, rows))
                versions = next(iter(rows.values()))["versions"]
    software = ", ".join(f"{k} {v}" for k, v in versions.items() if not k.startswith("device"))
    text = [
        "# One look, and several scales with flips",
        "```bash\n" + "\n".join(commands()) + "\n```",
        f"{given.hardware}; {software}. {given.note}".strip(),
        "Intervals hold the score with 95 % if other images of the same kind were drawn "
        "(bootstrap); the last column pairs the images of both protocols. Frames of one drive are "
        "alike, so CamVid's intervals are narrower than those of as many scenes would be.",
        *parts,
    ]
    given.output.write_text("\n\n".join(text) + "\n")
    print(given.output.read_text())


def commands() -> list[str]:
    """How such files are made."""
    evaluate = "python -m segjax.evaluate --workdir=RUN --split=SPLIT"
    return [evaluate, f'{evaluate} --protocol="deeplab_v3_ms_flip"']


def section(workdir: pathlib.Path, split: str, rows: dict) -> str:
    """The table of one run and split; the run's own protocol comes first."""
    ordered = sorted(rows, key=lambda p: len(p.stem))
    base = marginals(ordered[0])
    lines = []
    for path in ordered:
        fields = rows[path]
        interval = fields["miou_interval"]
        gain = bootstrap.miou_difference(marginals(path), base)
        change = f"{100 * gain.value:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
        lines.append(
            f"| {fields['protocol']['views']['name']} | **{100 * fields['scores']['miou']:.2f}** "
            f"({100 * interval['low']:.2f} to {100 * interval['high']:.2f}) "
            f"| {100 * fields['scores']['pixel_accuracy']:.2f} "
            f"| {100 * fields['boundary_f1']['mean']:.2f} "
            f"| {100 * fields['boundary_iou']['mean']:.2f} | {100 * fields['scores']['ece']:.2f} "
            f"| {'' if path == ordered[0] else change} |"
        )
    step = rows[ordered[0]]["step"]
    return (
        f"## {workdir.name}, {split}, step {step}\n\n"
        "| protocol | mIoU % | pixel accuracy % | boundary F1 % | Boundary IoU % "
        "| calibration error % | gain in mIoU |\n|---|---|---|---|---|---|---|\n" + "\n".join(lines)
    )


def marginals(path: pathlib.Path) -> np.ndarray:
    """int64 [n, 3, K], by the images' names."""
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        return arrays["marginals"][np.argsort(arrays["names"])]


if __name__ == "__main__":
    main()
