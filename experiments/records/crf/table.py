"""The page of CRFs behind networks: how they were tuned, and the scores before and after.

    python -m experiments.records.crf.table --hardware="2 CPU cores" runs/a runs/b --trained runs/b runs/c

Reads what `experiments.records.crf.tune` wrote beside this file as <run>.json, and what `segjax.evaluate`
stored in the runs' folders: their own protocol, and those with a CRF. Copies the pictures. Runs
under `--trained` stand in one table, compared with the first: a CRF-RNN and what it started from.
"""

import argparse
import json
import pathlib

import cv2
import numpy as np

from experiments.records.camvid_protocols.table import marginals
from segjax.metrics import bootstrap

HERE = pathlib.Path(__file__).parent
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


def main() -> None:
    """Writes README.md beside this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path)
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--trained", nargs="*", default=(), type=pathlib.Path)
    parser.add_argument("--split", default="test")
    given = parser.parse_args()
    parts = [
        "# The fully connected CRF behind networks",
        "```bash\n" + "\n".join(commands()) + "\n```",
    ]
    for workdir in given.workdirs:
        parts += [tuning(workdir), scores(workdir, given.split, given.hardware)]
    if given.trained:
        parts.append(trained(given.trained, given.split, given.hardware))
    parts += [
        "Intervals hold a score with 95 % if other images of the same kind were drawn (bootstrap); "
        "gains pair the images. w, in nats, weighs a kernel; alpha and gamma are pixels, beta is "
        "of 255. mIoU and cross-entropy of the tuning are of its images alone.",
        "Photographs: [photographs.md](photographs.md). Time: [bench.md](bench.md). Agreement with "
        "pydensecrf2: [../parity/crf.md](../parity/crf.md).",
    ]
    (HERE / "README.md").write_text("\n\n".join(parts) + "\n")
    print((HERE / "README.md").read_text())


def commands() -> list[str]:
    """How such files are made."""
    return [
        "SEGJAX_DATA=DIR python -m experiments.records.crf.tune --workdir=RUN "
        "--output=experiments/crf/NAME.json --hardware=TEXT",
        "SEGJAX_DATA=DIR python -m segjax.evaluate --workdir=RUN --split=test",
        "SEGJAX_DATA=DIR python -m segjax.evaluate --workdir=RUN --split=test "
        '--crf="deeplab_v1, w1=..., theta_alpha=..."',
        "python -m segjax.main --config=configs/crf_rnn_fcn8s.py",
        "# its control, FCN-8s for as many steps more",
        "python -m segjax.main --config=configs/fcn8s.py --config.init.from=runs/fcn8s "
        "--workdir=runs/fcn8s_longer --config.total_steps=400 --config.optim.lr=0.005 "
        "--config.optim.warmup_steps=20",
        "python -m experiments.records.crf.table --hardware=TEXT RUN ... --trained RUN ...",
    ]


def values(row: dict) -> str:
    """The five parameters, in the order of PARAMETERS."""
    return " | ".join(f"{row[key]:.3g}" for key in PARAMETERS)


def tuning(workdir: pathlib.Path) -> str:
    """What the search found on the validation images, if there was one."""
    if not (HERE / f"{workdir.name}.json").exists():
        return f"## {workdir.name}: not tuned"
    record = json.loads((HERE / f"{workdir.name}.json").read_text())
    grid = record["grid"]
    rows = [
        ("the network alone", None, record["network"], None),
        (f"best of the grid of {len(grid)}", record["best"], record["best"]["miou"], "start"),
        ("from there by gradient", record["gradient"], record["gradient"]["miou"], "gradient"),
        ("worst of the grid", grid[-1], grid[-1]["miou"], None),
    ]
    lines = ["| | w1 | alpha | beta | w2 | gamma | mIoU % | cross-entropy |", "|" + "---|" * 8]
    for name, at, miou, key in rows:
        loss = record[key]["loss"] if key else at["loss"] if at else record["network_loss"]
        shown = values(at) if at else " | ".join(["-"] * 5)
        lines.append(f"| {name} | {shown} | {100 * miou:.2f} | {loss:.4f} |")
    return (
        f"## {record['run']}: tuned on {record['images']} images of {record['split']}\n\n"
        f"{record['hardware']}; {record['date']}; jax {record['versions']['jax']}; step "
        f"{record['step']}.\n\n" + "\n".join(lines)
    )


def scores(workdir: pathlib.Path, split: str, hardware: str) -> str:
    """Before and after, on a split that was not tuned on."""
    found = evaluations(workdir, split)
    own = workdir / f"eval-{split}.json"
    base = marginals(own)
    lines = [
        "| CRF | w1 | alpha | beta | w2 | gamma | " + " | ".join(SCORES) + " |",
        "|" + "---|" * (6 + len(SCORES)),
    ]
    for path, fields in found.items():
        crf = fields["protocol"].get("crf")
        lines.append(
            f"| {crf['name'] if crf else 'none'} | {values(crf) if crf else '- | - | - | - | -'} "
            f"| {judged(path, fields, base if crf else None)} |"
        )
    best = max(found, key=lambda path: (path != own, found[path]["scores"]["miou"]))
    picture = picture_of(workdir / "pictures" / f"{best.stem}-before.png", workdir.name)
    step = found[own]["step"]
    return (
        f"### {split}\n\n{hardware}; {found[own]['examples']} images, step {step}.\n\n"
        + "\n".join(lines)
        + f"\n\n![before and after the CRF]({picture})"
    )


def evaluations(workdir: pathlib.Path, split: str) -> dict[pathlib.Path, dict]:
    """The stored ones of a run: its own protocol, then those with a CRF behind it."""
    own = workdir / f"eval-{split}.json"
    found = {own: json.loads(own.read_text())}
    for path in sorted(workdir.glob(f"eval-{split}-*.json")):
        fields = json.loads(path.read_text())
        if fields["protocol"].get("crf"):
            found[path] = fields
    return found


def judged(path: pathlib.Path, fields: dict, base: np.ndarray | None) -> str:
    """Scores of an evaluation, and its gain over `base`."""
    interval, change = fields["miou_interval"], ""
    if base is not None:
        gain = bootstrap.miou_difference(marginals(path), base)
        change = f"{100 * gain.value:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
    return (
        f"**{100 * fields['scores']['miou']:.2f}** "
        f"({100 * interval['low']:.2f} to {100 * interval['high']:.2f}) | {change} "
        f"| {100 * fields['scores']['pixel_accuracy']:.2f} "
        f"| {100 * fields['boundary_f1']['mean']:.2f} "
        f"| {100 * fields['boundary_iou']['mean']:.2f} | {100 * fields['scores']['ece']:.2f} "
        f"| {fields['scores']['loss']:.4f}"
    )


def trained(workdirs: list[pathlib.Path], split: str, hardware: str) -> str:
    """Runs and their CRFs, compared with the first run alone."""
    base, lines = marginals(workdirs[0] / f"eval-{split}.json"), []
    for workdir in workdirs:
        within = json.loads((workdir / "config.json").read_text())["model"].get("crf")
        for path, fields in evaluations(workdir, split).items():
            crf = fields["protocol"].get("crf")
            kind = crf["name"] if crf else "trained with it" if within else "none"
            first = not lines
            lines.append(
                f"| {workdir.name} | {fields['step']} | {kind} "
                f"| {judged(path, fields, None if first else base)} |"
            )
    head = ["| run | step | CRF | " + " | ".join(SCORES) + " |", "|" + "---|" * (3 + len(SCORES))]
    return f"## Trained with the network: {split}\n\n{hardware}.\n\n" + "\n".join(head + lines)


def picture_of(path: pathlib.Path, name: str) -> str:
    """Copies a panel as JPEG; its new name."""
    panel = cv2.imread(str(path))
    encoded = cv2.imencode(".jpg", panel, (cv2.IMWRITE_JPEG_QUALITY, 85))[1]
    (HERE / f"{name}.jpg").write_bytes(np.asarray(encoded).tobytes())
    return f"{name}.jpg"


if __name__ == "__main__":
    main()
