"""Writes README.md of this folder from its JSON files and notes.md.

python -m experiments.benchmarks.throughput.report
"""

import json
import pathlib
import statistics

from experiments.shared import pages

TITLES = {
    "fcn8s": "FCN-8s on VGG-16 without batch norm",
    "deeplab_v3": "DeepLab v3 on ResNet-50, output stride 16",
    "pspnet": "PSPNet on ResNet-50 with its auxiliary head",
}
NAMES = {
    "train": "training step",
    "evaluate": "evaluation step",
    "forward": "forward, to the scores",
    "latency": "latency, one image to its label map",
}
_COMMAND = "python -m experiments.benchmarks.throughput."


def write(folder: pathlib.Path) -> None:
    """README.md."""
    parts = [
        "# Throughput: segjax against PyTorch",
        f"Written by `{_COMMAND}report` from the JSON files here.",
    ]
    for path in sorted(folder.glob("bench-*.json")):
        parts += section(json.loads(path.read_text()))
    for path in sorted(folder.glob("profile-*.json")):
        parts += profile(json.loads(path.read_text()))
    parts.append((folder / "notes.md").read_text().strip())
    pages.write(folder / "README.md", parts)


def now(result: dict) -> str:
    """The command that repeats a measurement: its module lay in another folder once."""
    return _COMMAND + result["command"].strip().partition("throughput.")[2]


def section(result: dict) -> list[str]:
    """The comparison on one machine."""
    setting = result["setting"]
    scores = max(result["max_relative_difference"]["scores"].values())
    same = f"Scores differ by {scores:.1e} of the largest"
    if "gradients" in result["max_relative_difference"]:
        errors = result["max_relative_difference"]["gradients"]
        same += (
            f"; one update's gradients in float32 are off float64's by {errors['segjax']:.1e} "
            f"(segjax) and {errors['pytorch']:.1e} (PyTorch) of their norm"
        )
    rounds = len(result["seconds"]["train"]["segjax"])
    products = result["product_gflop_per_s"]
    software = pages.software(result["versions"], device=False)
    return [
        f"## {TITLES[setting['name']]}: {result['hardware']}",
        pages.block(now(result)),
        f"{result['date']}; {software}. {pages.made(result, now(result))} Batch {setting['batch']} "
        f"(latency: 1) at {' x '.join(map(str, setting['size']))}, {setting['dtype']}, width "
        f"{setting['width']}, K = 21. Both sides in turn, medians of {rounds} rounds; load average "
        f"of the machine {result['load_average'][0]:.1f}. {same}.",
        pages.table(
            ("", "segjax, ms", "PyTorch, ms", "PyTorch / segjax", "its setting"),
            [row(result, measure) for measure in result["seconds"]],
        ),
        f"The share of the rate of one large matrix product ({products['segjax']:.0f} GFLOP/s in "
        f"JAX, {products['pytorch']:.0f} in PyTorch): {'; '.join(utilisation(result))}. Operations "
        "are counted by the formula of each convolution, so a method that multiplies less can be "
        "above 1.",
        "PyTorch's settings, medians of three, ms:",
        tried(result["pytorch_tried_seconds"]),
    ]


def row(result: dict, measure: str) -> list[str]:
    """The cells of one measurement."""
    ours, other = (result["seconds"][measure][side] for side in ("segjax", "pytorch"))
    a, b = statistics.median(ours), statistics.median(other)
    ratios = sorted(y / x for x, y in zip(ours, other, strict=True))
    return [
        NAMES[measure],
        f"{1000 * a:.0f}",
        f"{1000 * b:.0f}",
        f"**{b / a:.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        result["pytorch_chosen"][measure],
    ]


def utilisation(result: dict) -> list[str]:
    """The share of the matrix product's rate, training and forward."""
    phrases = []
    for measure, key in (("train", "train_gflop"), ("forward", "forward_gflop")):
        shares = [
            result[key]
            / statistics.median(result["seconds"][measure][side])
            / result["product_gflop_per_s"][side]
            for side in ("segjax", "pytorch")
        ]
        phrases.append(f"{NAMES[measure]} {shares[0]:.2f} in segjax, {shares[1]:.2f} in PyTorch")
    return phrases


def tried(times: dict) -> str:
    """The times of every setting of PyTorch."""
    settings = list(next(iter(times.values())))
    rows = [
        [NAMES[measure], *(f"{1000 * seconds[name]:.0f}" for name in settings)]
        for measure, seconds in times.items()
    ]
    return pages.table(["", *settings], rows)


def profile(result: dict) -> list[str]:
    """The operations that take longest in a training step."""
    rows = [
        [
            f"{op['ms']:.1f}",
            f"{op['ms'] / result['total_ms']:.1%}",
            str(op["calls"]),
            op["name"],
            f"`{op['result']}`",
            op["source"],
        ]
        for op in result["operations"]
    ]
    return [
        f"## Profile of segjax's training step, {TITLES[result['net']]}: {result['hardware']}",
        pages.block(now(result)),
        f"The longest of {result['total_ms']:.0f} ms in all, over all threads or streams. "
        f"{pages.made(result, now(result))}",
        pages.table(("ms", "share", "calls", "operation", "result", "from"), rows),
    ]


if __name__ == "__main__":
    write(pathlib.Path(__file__).parent)
