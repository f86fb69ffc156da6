"""The page of CRFs behind networks: their tuning, and the scores before and after.

    python -m experiments.records.crf.table --hardware="2 CPU cores" runs/a runs/b \
        --trained runs/b runs/c

Reads what `tune` wrote beside this file as <run>.json, and what `segjax.evaluate` stored in the run
folders: their protocol, and those with a CRF. Copies the pictures. Runs under `--trained` stand in
one table, compared with the first: a CRF-RNN and the network it started from. Writes README.md
beside this file, or into `--output`.
"""

import argparse
import json
import pathlib

import cv2
import numpy as np

from experiments.shared import evaluations, pages

FOLDER = pathlib.Path(__file__).parent
PARAMETERS = ("w1", "theta_alpha", "theta_beta", "w2", "theta_gamma")
SCORES = (
    "mIoU %",
    "gain",
    "pixel accuracy %",
    "boundary F1 %",
    "Boundary IoU %",
    "calibration error %",
    "cross-entropy",
)
COMMANDS = (
    "SEGJAX_DATA=DIR python -m experiments.records.crf.tune --workdir=RUN "
    "--output=experiments/records/crf/NAME.json --hardware=TEXT",
    "SEGJAX_DATA=DIR python -m segjax.evaluate --workdir=RUN --split=test",
    "SEGJAX_DATA=DIR python -m segjax.evaluate --workdir=RUN --split=test "
    '--crf="deeplab_v1, w1=..., theta_alpha=..."',
    "python -m segjax.main --config=crf_rnn_fcn8s",
    "# its control, FCN-8s for as many steps more",
    "python -m segjax.main --config=fcn8s --config.init.from=runs/fcn8s "
    "--workdir=runs/fcn8s_longer --config.total_steps=400 --config.optim.lr=0.005 "
    "--config.optim.warmup_steps=20",
    "python -m experiments.records.crf.table --hardware=TEXT RUN ... --trained RUN ...",
)
RUNS = (
    "The runs, by the commands that repeat them now: mobilenet_camvid "
    "`--config=deeplab_v3_mobilenet:camvid,small`, googlenet_camvid "
    "`--config=fcn8s_googlenet:camvid,small`, fcn8s_scenes `--config=fcn8s`, deeplab_v1_scenes "
    "`--config=deeplab_v1_largefov`."
)


def main() -> None:
    """Collects the runs and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path)
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--trained", nargs="*", default=(), type=pathlib.Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", type=pathlib.Path, default=FOLDER)
    given = parser.parse_args()
    parts = ["# The fully connected CRF behind networks", pages.block(*COMMANDS), RUNS]
    for workdir in given.workdirs:
        parts += tuning(workdir)
        parts += scores(workdir, given.split, given.hardware, given.output)
    if given.trained:
        parts += trained(given.trained, given.split, given.hardware)
    parts += [
        "Intervals hold a score with 95 % if other images of the same kind were drawn (bootstrap); "
        "gains pair the images. w, in nats, weighs a kernel; alpha and gamma are pixels, beta is "
        "of 255. mIoU and cross-entropy of the tuning are of its images alone.",
        "Photographs: [photographs.md](photographs.md). Time: "
        "[benchmarks/crf](../../benchmarks/crf). Agreement with pydensecrf2: "
        "[parity/crf.md](../../parity/crf.md).",
    ]
    pages.write(given.output / "README.md", parts)
    print((given.output / "README.md").read_text())


def values(row: dict | None) -> list[str]:
    """Cells of the five parameters, in the order of PARAMETERS; dashes without a CRF."""
    return [f"{row[key]:.3g}" for key in PARAMETERS] if row else ["-"] * len(PARAMETERS)


def tuning(workdir: pathlib.Path) -> list[str]:
    """What the search gave on the validation images, if there was one."""
    path = FOLDER / f"{workdir.name}.json"
    if not path.exists():
        return [f"## {workdir.name}: not tuned"]
    record = json.loads(path.read_text())
    grid, best, gradient = record["grid"], record["best"], record["gradient"]
    rows = [
        ("the network alone", None, record["network"], record["network_loss"]),
        (f"best of the grid of {len(grid)}", best, best["miou"], record["start"]["loss"]),
        ("from there by gradient", gradient, gradient["miou"], gradient["loss"]),
        ("worst of the grid", grid[-1], grid[-1]["miou"], grid[-1]["loss"]),
    ]
    head = ("", "w1", "alpha", "beta", "w2", "gamma", "mIoU %", "cross-entropy")
    cells = [
        [name, *values(crf), f"{100 * miou:.2f}", f"{loss:.4f}"] for name, crf, miou, loss in rows
    ]
    return [
        f"## {record['run']}: tuned on {record['images']} images of {record['split']}",
        f"{record['hardware']}; {record['date']}; jax {record['versions']['jax']}; step "
        f"{record['step']}.",
        pages.table(head, cells),
    ]


def scores(workdir: pathlib.Path, split: str, hardware: str, output: pathlib.Path) -> list[str]:
    """Before and after, on a split that was not tuned on."""
    stored = evaluated(workdir, split)
    alone = workdir / f"eval-{split}.json"
    base = evaluations.marginals(alone)
    rows = []
    for path, fields in stored.items():
        crf = fields["protocol"].get("crf")
        name = crf["name"] if crf else "none"
        rows.append([name, *values(crf), *judged(path, fields, base if crf else None)])
    best = max(stored, key=lambda path: (path != alone, stored[path]["scores"]["miou"]))
    panel = cv2.imread(str(workdir / "pictures" / f"{best.stem}-before.png"))
    pages.write_jpeg(output / f"{workdir.name}.jpg", panel[..., ::-1])
    fields = stored[alone]
    return [
        f"### {split}",
        f"{hardware}; {fields['examples']} images, step {fields['step']}.",
        pages.table(("CRF", "w1", "alpha", "beta", "w2", "gamma", *SCORES), rows),
        f"![before and after the CRF]({workdir.name}.jpg)",
    ]


def evaluated(workdir: pathlib.Path, split: str) -> dict[pathlib.Path, dict]:
    """The stored evaluations of a run: under its protocol, then those with a CRF behind it."""
    alone = workdir / f"eval-{split}.json"
    stored = {alone: json.loads(alone.read_text())}
    for path in sorted(workdir.glob(f"eval-{split}-*.json")):
        fields = json.loads(path.read_text())
        if fields["protocol"].get("crf"):
            stored[path] = fields
    return stored


def judged(path: pathlib.Path, fields: dict, base: np.ndarray | None) -> list[str]:
    """Cells of an evaluation's scores, and of its gain over `base`."""
    gain = "" if base is None else evaluations.gain(path, base)
    others = evaluations.other_scores(fields)
    return [evaluations.miou(fields), gain, *others, f"{fields['scores']['loss']:.4f}"]


def trained(workdirs: list[pathlib.Path], split: str, hardware: str) -> list[str]:
    """Runs and their CRFs, compared with the first run alone."""
    base, rows = evaluations.marginals(workdirs[0] / f"eval-{split}.json"), []
    for workdir in workdirs:
        within = json.loads((workdir / "config.json").read_text())["model"].get("crf")
        for path, fields in evaluated(workdir, split).items():
            crf = fields["protocol"].get("crf")
            kind = crf["name"] if crf else "trained with it" if within else "none"
            cells = judged(path, fields, base if rows else None)
            rows.append([workdir.name, str(fields["step"]), kind, *cells])
    return [
        f"## Trained with the network: {split}",
        f"{hardware}.",
        pages.table(("run", "step", "CRF", *SCORES), rows),
    ]


if __name__ == "__main__":
    main()
