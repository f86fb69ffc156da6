"""Writes README.md of this folder from its JSON files and notes.md."""

import json
import pathlib
import statistics

from experiments.benchmarks.throughput.nets import NETS

NAMES = {
    "train": "training step",
    "evaluate": "evaluation step",
    "forward": "forward, to the scores",
    "latency": "latency, one image to its label map",
}


def write(folder: pathlib.Path) -> None:
    """README.md."""
    parts = [
        "# Throughput: segjax against PyTorch",
        "Written by `report.py` from the JSON files here.",
    ]
    for path in sorted(folder.glob("bench-*.json")):
        parts += section(json.loads(path.read_text()))
    for path in sorted(folder.glob("profile-*.json")):
        parts += profile(json.loads(path.read_text()))
    parts.append((folder / "notes.md").read_text().strip())
    (folder / "README.md").write_text("\n\n".join(parts) + "\n")


def section(result: dict) -> list[str]:
    """One machine's table."""
    setting, versions = result["setting"], result["versions"]
    software = ", ".join(f"{k} {v}" for k, v in versions.items() if not k.startswith("device"))
    scores = max(result["max_relative_difference"]["scores"].values())
    same = f"Scores differ by {scores:.1e} of the largest"
    if "gradients" in result["max_relative_difference"]:
        errors = result["max_relative_difference"]["gradients"]
        same += (
            f"; one update's gradients in float32 are off float64's by {errors['segjax']:.1e} "
            f"(segjax) and {errors['pytorch']:.1e} (PyTorch) of their norm"
        )
    rounds = len(result["seconds"]["train"]["segjax"])
    head = (
        "| | segjax, ms | PyTorch, ms | PyTorch / segjax | its setting |\n|---|---|---|---|---|\n"
    )
    products = result["product_gflop_per_s"]
    return [
        f"## {NETS[setting['name']].title}: {result['hardware']}",
        f"```bash\n{result['command'].strip()}\n```",
        f"{result['date']}; {software}. Batch {setting['batch']} (latency: 1) at "
        f"{' x '.join(map(str, setting['size']))}, {setting['dtype']}, width {setting['width']}, "
        f"K = 21. Both sides in turn, medians of {rounds} rounds; load average of the machine "
        f"{result['load_average'][0]:.1f}. {same}.",
        head + "\n".join(row(result, measure) for measure in result["seconds"]),
        f"Of the rate of one large matrix product ({products['segjax']:.0f} GFLOP/s in JAX, "
        f"{products['pytorch']:.0f} in PyTorch): " + "; ".join(utilisation(result)) + ". "
        "Counted by the formula of each convolution, so a method that multiplies less can be "
        "above 1.",
        "PyTorch's settings, medians of three, ms:",
        tried(result["pytorch_tried_seconds"]),
    ]


def row(result: dict, measure: str) -> str:
    """One measurement."""
    ours, other = (result["seconds"][measure][side] for side in ("segjax", "pytorch"))
    a, b = statistics.median(ours), statistics.median(other)
    ratios = sorted(y / x for x, y in zip(ours, other, strict=True))
    return (
        f"| {NAMES[measure]} | {1000 * a:.0f} | {1000 * b:.0f} | **{b / a:.2f}** "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}) | {result['pytorch_chosen'][measure]} |"
    )


def utilisation(result: dict) -> list[str]:
    """The share of the matrix product's rate, training and forward."""
    found = []
    for measure, key in (("train", "train_gflop"), ("forward", "forward_gflop")):
        shares = [
            result[key]
            / statistics.median(result["seconds"][measure][side])
            / result["product_gflop_per_s"][side]
            for side in ("segjax", "pytorch")
        ]
        found.append(f"{NAMES[measure]} {shares[0]:.2f} in segjax, {shares[1]:.2f} in PyTorch")
    return found


def tried(times: dict) -> str:
    """What each setting of PyTorch took."""
    names = list(next(iter(times.values())))
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for measure, found in times.items():
        numbers = " | ".join(f"{1000 * found[name]:.0f}" for name in names)
        lines.append(f"| {NAMES[measure]} | {numbers} |")
    return "\n".join(lines)


def profile(result: dict) -> list[str]:
    """The operations that take longest in a training step."""
    lines = ["| ms | share | calls | operation | result | from |", "|---|---|---|---|---|---|"]
    for op in result["operations"]:
        lines.append(
            f"| {op['ms']:.1f} | {op['ms'] / result['total_ms']:.1%} | {op['calls']} "
            f"| {op['name']} | `{op['result']}` | {op['source']} |"
        )
    return [
        f"## Profile of segjax's training step, {NETS[result['net']].title}: {result['hardware']}",
        f"```bash\n{result['command']}\n```",
        f"The longest of {result['total_ms']:.0f} ms in all, over all threads or streams.",
        "\n".join(lines),
    ]
