"""One measurement of a session on a GPU, printed as a line of JSON: see experiments/gpu.

    python -m experiments.benchmarks.gpu.measure NAME [--tiny]

NAME is one of MEASUREMENTS, most wanted first; `list` prints them. --tiny cuts sizes, so that a CPU
goes through the same code in seconds; its numbers mean nothing.
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory, too

import argparse
import functools
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared import timing
from segjax import classical, crf, sharding
from segjax.classical import batches
from segjax.configuration import loading

ROOT = pathlib.Path(__file__).parents[3]
LABELS = 21


def main() -> None:
    """Prints the line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=("list", *MEASUREMENTS))
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    if given.name == "list":
        print("\n".join(MEASUREMENTS))
        return
    start = time.monotonic()
    row = {"name": given.name, "device": jax.devices()[0].device_kind, "jax": jax.__version__}
    row |= MEASUREMENTS[given.name](given.tiny)
    print(json.dumps(row | {"tiny": given.tiny, "seconds": time.monotonic() - start}))


def smoke(tiny: bool) -> dict:
    """The main job, a few steps of it, from the shell."""
    del tiny
    with tempfile.TemporaryDirectory() as folder:
        command = ["segjax.main", "--config=fcn8s:smoke", f"--workdir={folder}/run"]
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
        )
        lines = (pathlib.Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    return {"status": done.returncode, "last": json.loads(lines[-1]), "log": done.stderr[-2000:]}


def training(tiny: bool, *, net: str) -> dict:
    """Training steps beside PyTorch's, compiled; time and memory beside what a budget tells."""
    from experiments.benchmarks.throughput import sides
    from segjax.compilers import targets
    from segjax.planning import plan, roofline

    batch = 32 if net == "fcn8s" else 16
    size, batch, width = ((48, 64), 2, 8) if tiny else ((360, 480), batch, 64)
    setting = sides.Setting(net, size, batch, "bfloat16", width)
    target = targets.target("", "")
    told = plan.training_step(
        plan.Recipe(setting.config(quiet=False), sides.SPEC, size, size), target
    )
    row = {"images": batch, "size": size, "told_bytes": told.memory.total}
    row["flops"] = told.operations.products
    if bound := roofline.bound(told, target, "bfloat16"):
        row["bound_seconds"], row["bound_by"] = bound.seconds, bound.limit
    ours = sides.Segjax(setting, sides.Torch(setting, "cpu").arrays())
    steps = 2 if tiny else 20
    row["segjax_seconds"] = seconds(ours.train, steps)
    row["segjax_bytes"] = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if target.chip is not None:
        row["mfu"] = row["flops"] / row["segjax_seconds"] / target.chip.rates["bfloat16"]
    row["segjax_images_per_second"] = batch / row["segjax_seconds"]
    del ours
    return row | by_torch(setting, steps, compiled=not tiny)


def by_torch(setting, steps: int, *, compiled: bool) -> dict:
    """The same by PyTorch, channels last; what failed is a row, too."""
    import torch

    from experiments.benchmarks.throughput import sides

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    try:
        other = sides.Torch(setting, device, channels_last=True, compiled=compiled)
        time_taken = seconds(other.train, steps)
    except Exception as error:  # segjax's own numbers are worth keeping
        return {"torch_error": str(error)[:300]}
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {
        "torch": torch.__version__,
        "torch_seconds": time_taken,
        "torch_images_per_second": setting.batch / time_taken,
        "torch_bytes": peak,
    }


def seconds(train: Callable[[int], object], steps: int) -> float:
    """Seconds of one step: the median of five rounds, after one that may compile."""
    train(2)
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        train(steps)
        rounds.append((time.perf_counter() - start) / steps)
    return sorted(rounds)[2]


def fc6(tiny: bool) -> dict:
    """FCN-8s's largest layer as a convolution and as a product, forward and backward."""
    from segjax.models import convolution

    batch, channels, features = (2, 8, 16) if tiny else (32, 512, 4096)
    x = jax.random.normal(jax.random.key(0), (batch, 12, 15, channels), jnp.bfloat16)
    kernel = jax.random.normal(jax.random.key(1), (7, 7, channels, features), jnp.bfloat16)
    pads = ((3, 3), (3, 3))
    forms = {
        "convolution": functools.partial(convolution.conv_form, pads=pads),
        "product": functools.partial(convolution.matmul_form, pads=pads),
    }

    def both_ways(form):
        step = jax.jit(lambda x, k: jax.vjp(form, x, k)[1](form(x, k)))
        return lambda: jax.block_until_ready(step(x, kernel))

    found = timing.median_ms(*map(both_ways, forms.values()), rounds=5)
    return {f"{name}_ms": ms for name, ms in zip(forms, found, strict=True)}


def fully_connected(tiny: bool) -> dict:
    """The CRF, on one image of noise and on eight together: milliseconds an image."""
    from experiments.benchmarks.crf import bench

    dense = crf.build("deeplab_v1", iterations=10)
    row, rng = {}, np.random.default_rng(0)
    for size in ((24, 32),) if tiny else ((240, 320), (375, 500)):
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        image = np.asarray(jax.image.resize(coarse.astype(np.float32), (*size, 3), "cubic"))
        image = np.clip(image, 0, 255).astype(np.uint8)
        logits = rng.normal(size=(*size, LABELS)).astype(np.float32)
        cases = [(image, logits)]
        found = bench.measure(cases, dense, 3, "an accelerator")
        row |= {f"{key}_{size[0]}x{size[1]}": value for key, value in found.items()}
    return row


def clustering(tiny: bool, *, recipe: str) -> dict:
    """A classical method on one image of noise and on 64 together: milliseconds an image."""
    count, size = (2, (24, 32)) if tiny else (64, (321, 481))
    method = classical.build(**loading.load(recipe).method)
    images = np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    program, row = batches.over_batch(method, mesh), {"batch": count}
    for key, rows in (("single", images[:1]), ("batched", images)):
        placed = jax.device_put(rows)
        (ms,) = timing.median_ms(lambda p=placed: program(p).block_until_ready(), rounds=3)
        row[f"{key}_ms_per_image"] = ms / len(rows)
    return row


def longest(tiny: bool) -> dict:
    """The ten operations of FCN-8s's training step that take longest."""
    from experiments.benchmarks.throughput import profile, sides

    setting = sides.Setting(
        "fcn8s", (48, 64) if tiny else (360, 480), 2 if tiny else 32, "bfloat16", 8 if tiny else 64
    )
    ours = sides.Segjax(setting, sides.Torch(setting, "cpu").arrays())
    total, rows = profile.longest(ours)
    return {"total_ms": total, "longest": rows[:10]}


MEASUREMENTS: dict[str, Callable[[bool], dict]] = {
    "smoke": smoke,
    **{
        f"training_{net}": functools.partial(training, net=net)
        for net in ("fcn8s", "deeplab_v3", "pspnet", "segnet")
    },
    "fc6": fc6,
    "crf": fully_connected,
    "kmeans": functools.partial(clustering, recipe="kmeans"),
    "slic": functools.partial(clustering, recipe="slic"),
    "longest": longest,
}


if __name__ == "__main__":
    main()
