"""A table of runs under several protocols, from what `segjax.evaluate` stored in their folders.

    python -m experiments.records.camvid_protocols.table --hardware="2 CPU cores" runs/a runs/b

Writes README.md beside this file, or into `--output`.
"""

import argparse
import json
import pathlib

from experiments.shared import evaluations, pages

COMMANDS = (
    "python -m segjax.evaluate --workdir=RUN --split=SPLIT",
    'python -m segjax.evaluate --workdir=RUN --split=SPLIT --protocol="deeplab_v3_ms_flip"',
)
HEAD = (
    "protocol",
    "mIoU %",
    "pixel accuracy %",
    "boundary F1 %",
    "Boundary IoU %",
    "calibration error %",
    "gain in mIoU",
)


def main() -> None:
    """Reads every eval-*.json and its .npz, writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path)
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--note", default="", help="a sentence on the runs")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path(__file__).with_name("README.md")
    )
    given = parser.parse_args()
    parts, versions = [], {}
    for workdir in given.workdirs:
        stored = {path: json.loads(path.read_text()) for path in workdir.glob("eval-*.json")}
        stored = {path: fields for path, fields in stored.items() if "miou_interval" in fields}
        for split in ("val", "test"):
            rows = {p: f for p, f in stored.items() if f["protocol"]["split"] == split}
            if rows:
                parts += section(workdir, split, rows)
                versions = next(iter(rows.values()))["versions"]
    text = [
        "# One look, and several scales with flips",
        pages.block(*COMMANDS),
        f"{given.hardware}; {pages.software(versions, device=False)}. {given.note}".strip(),
        "Intervals hold the score with 95 % if other images of the same kind were drawn "
        "(bootstrap); the last column pairs the images of both protocols. Frames of one drive are "
        "alike, so CamVid's intervals are narrower than those of as many scenes would be.",
        *parts,
    ]
    pages.write(given.output, text)
    print(given.output.read_text())


def section(workdir: pathlib.Path, split: str, rows: dict[pathlib.Path, dict]) -> list[str]:
    """The heading and the table of one run and split; the run's protocol comes first."""
    ordered = sorted(rows, key=lambda path: (len(path.stem), path.stem))
    base = evaluations.marginals(ordered[0])
    cells = [
        [
            rows[path]["protocol"]["views"]["name"],
            evaluations.miou(rows[path]),
            *evaluations.other_scores(rows[path]),
            "" if path == ordered[0] else evaluations.gain(path, base),
        ]
        for path in ordered
    ]
    heading = f"## {workdir.name}, {split}, step {rows[ordered[0]]['step']}"
    return [heading, pages.table(HEAD, cells)]


if __name__ == "__main__":
    main()
