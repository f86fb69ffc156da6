"""A network in segjax and in PyTorch, timed in turn in one run.

    python -m experiments.benchmarks.throughput.bench --net=fcn8s

Proves first that both compute the same (scores; in float32 one update's gradients as well, each
beside float64), picks PyTorch's fastest setting for each measurement, then times both sides in
turn. Writes bench-NET-DEVICE.json and the page, README.md. On a GPU:

    python -m experiments.benchmarks.throughput.bench --net=pspnet --size=360x480 \\
        --dtype=bfloat16 --batch=16 --steps=10
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU's memory is shared
# Threads that wait by spinning lose a time slice whenever anything else runs: ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import gc
import pathlib
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from experiments.benchmarks.throughput import report, sides
from experiments.benchmarks.throughput.nets import NETS
from experiments.shared import costs, pages
from segjax import files

MEASURES = ("train", "evaluate", "forward", "latency")
FOLDER = pathlib.Path(__file__).parent
BOUNDS = {"float32": 1e-4, "bfloat16": 5e-2}  # of max|a - b| / max|b|


def main() -> None:
    """Proves, chooses, measures, writes."""
    given = arguments()
    setting = given.setting
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    torch.set_num_threads(os.cpu_count())
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as XLA's default
    whole = setting.dtype == "float32"
    proof = {"gradients": gradient_errors(setting, device)} if whole else {}
    variants = {}
    for compiled in (False, True):
        for channels_last in (False, True):
            name = f"{'compiled' if compiled else 'eager'}, {'NHWC' if channels_last else 'NCHW'}"
            variants[name] = sides.Torch(
                setting, device, channels_last=channels_last, compiled=compiled
            )
    ours = sides.Segjax(setting, variants["eager, NCHW"].arrays())
    proof["scores"] = {name: difference(ours, other) for name, other in variants.items()}
    check(proof, BOUNDS[setting.dtype])
    choice, tried = choose(variants, given.steps)
    times = in_turn(ours, {m: variants[choice[m]] for m in MEASURES}, given.rounds, given.steps)
    macs = costs.multiply_adds(ours.build, setting.size)
    command = f"python -m experiments.benchmarks.throughput.bench {given.text}".strip()
    result = pages.circumstances(command, hardware(), torch=torch.__version__) | {
        "setting": vars(setting),
        "load_average": os.getloadavg(),
        "max_relative_difference": proof,
        "pytorch_tried_seconds": tried,
        "pytorch_chosen": choice,
        "seconds": times,
        # Three products a layer: the backward pass has one for the input and one for the kernel.
        "train_gflop": 6 * macs * setting.batch / 1e9,
        "forward_gflop": 2 * macs * setting.batch / 1e9,
        "product_gflop_per_s": ceiling(setting.dtype, device),
    }
    files.write_json(FOLDER / f"bench-{setting.name}-{device}.json", result)
    report.write(FOLDER)
    print((FOLDER / "README.md").read_text())


def arguments() -> argparse.Namespace:
    """The flags; `setting` is built from them, `text` repeats those that were given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", default="fcn8s", choices=NETS)
    parser.add_argument("--dtype", default="float32", choices=BOUNDS)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", default="224x224", help="height x width")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=1, help="of a round, timed as one")
    given = parser.parse_args()
    changed = {k: v for k, v in vars(given).items() if v != parser.get_default(k)}
    given.text = " ".join(f"--{name}={value}" for name, value in changed.items())
    size = tuple(int(side) for side in given.size.split("x"))
    given.setting = sides.Setting(given.net, size, given.batch, given.dtype, given.width)
    return given


def gradient_errors(setting: sides.Setting, device: str) -> dict[str, float]:
    """Each side's gradient error: its norm, all parameters together, to float64's norm.

    Batch norms magnify rounding on both sides. Rounding also takes single ReLUs across zero, so the
    largest error of any one number says little.
    """
    other = sides.Torch(setting, device, quiet=True)
    ours = sides.Segjax(setting, other.arrays(), quiet=True)
    exact = other.momentum_in_float64()
    found = {}
    for name, side in (("segjax", ours), ("pytorch", other)):
        side.train(1)
        errors = {path: array - exact[path] for path, array in side.momentum().items()}
        found[name] = optax.tree.norm(errors).item() / optax.tree.norm(exact).item()
    del ours, other
    gc.collect()
    return found


def difference(ours: sides.Segjax, other: sides.Torch) -> float:
    """max|a - b| / max|b| of the scores."""
    return apart(np.asarray(ours.forward(1), np.float32), other.forward(1))


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """max|a - b| / max|b|."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def check(proof: dict, bound: float) -> None:
    """Refuses to time two networks that differ.

    Winograd's tiles round up to three times as far as plain products.
    """
    far = {name: d for name, d in proof["scores"].items() if not d <= bound}
    errors = proof.get("gradients", {"segjax": 0, "pytorch": 0})
    if far or not errors["segjax"] <= 3 * errors["pytorch"] + bound:
        raise SystemExit(f"The two networks differ: {proof}.")


def choose(variants: dict, steps: int) -> tuple[dict, dict]:
    """PyTorch's fastest variant for each measurement, medians of three, and all that was tried."""
    tried = {}
    for measure in MEASURES:
        for other in variants.values():
            getattr(other, measure)(2)  # compiled, warm
        rounds = [{name: timed(v, measure, steps) for name, v in variants.items()} for _ in "123"]
        print(f"PyTorch's settings: {measure}", flush=True)
        tried[measure] = {name: statistics.median(r[name] for r in rounds) for name in variants}
    return {measure: min(found, key=found.get) for measure, found in tried.items()}, tried


def in_turn(ours: sides.Segjax, others: dict, rounds: int, steps: int) -> dict:
    """Seconds of a step, every round of both sides; the side that begins changes."""
    times = {measure: {"segjax": [], "pytorch": []} for measure in MEASURES}
    for measure in MEASURES:
        pair = {"segjax": ours, "pytorch": others[measure]}
        for side in pair.values():
            getattr(side, measure)(1)
        for i in range(rounds):
            for name in list(pair)[:: 1 if i % 2 else -1]:
                times[measure][name].append(timed(pair[name], measure, steps))
    return times


def timed(side, measure: str, steps: int) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    getattr(side, measure)(steps)
    return (time.perf_counter() - start) / steps


def ceiling(dtype: str, device: str) -> dict[str, float]:
    """10^9 operations a second of one large matrix product, the best of ten, on both sides."""
    n = 8192 if device == "cuda" else 2048
    a = jax.random.normal(jax.random.key(0), (n, n), dtype)
    b = torch.randn(n, n, device=device).to(getattr(torch, dtype))
    product = jax.jit(jnp.matmul)

    def by_torch():
        c = b @ b
        if device == "cuda":
            torch.cuda.synchronize()
        return c

    found = {}
    for name, run in (
        ("segjax", lambda: product(a, a).block_until_ready()),
        ("pytorch", by_torch),
    ):
        run()
        seconds = []
        for _ in range(10):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        found[name] = 2 * n**3 / min(seconds) / 1e9
    return found


def hardware() -> str:
    """The device, in words."""
    if jax.default_backend() == "gpu":
        return jax.devices()[0].device_kind
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {names[0] if names else platform.processor()}"


if __name__ == "__main__":
    main()
