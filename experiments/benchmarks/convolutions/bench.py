"""Single convolutions on a CPU: XLA's form, a sum over taps, and segjax's form.

    python -m experiments.benchmarks.convolutions.bench --hardware="2 CPU cores"

The layers are those of the atrous networks on CamVid's crops of 224 x 288. Each form is first
compared with XLA's; then all are timed in turn, and the medians of the rounds count. Writes
forms.json and README.md beside this file, or into `--output`; `--layers` takes the first few.
"""

import argparse
import functools
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared import pages
from segjax import files
from segjax.models import convolution, depthwise

FORMS = ("xla", "taps", "segjax")
COMMAND = 'python -m experiments.benchmarks.convolutions.bench --hardware="..."'
BOUND = 2e-4  # of max|a - b| / max|b|, between two forms in float32


class Layer(NamedTuple):
    """One convolution: [B, H, W, C] -> K channels by k x k taps; K = 0 is depthwise."""

    name: str
    shape: tuple[int, int, int, int]
    features: int
    size: int = 3
    stride: int = 1
    dilation: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """Options of the functions below: stride, dilation, padding as wide as the taps reach."""
        pad = self.dilation * (self.size // 2)
        return {"stride": self.stride, "dilation": self.dilation, "pads": ((pad, pad),) * 2}


LAYERS = (
    Layer("stem, 7 x 7", (4, 224, 288, 3), 64, size=7, stride=2),
    Layer("deep stem", (4, 224, 288, 3), 64, stride=2),
    Layer("stage 3 enters", (4, 56, 72, 128), 128, stride=2),
    Layer("stage 4 enters", (4, 28, 36, 256), 256, stride=2),
    Layer("PSPNet, stage 4", (4, 28, 36, 256), 256, dilation=2),
    Layer("PSPNet, stage 5", (4, 28, 36, 512), 512, dilation=4),
    Layer("v3, stage 5", (4, 14, 18, 512), 512, dilation=2),
    Layer("v3, stage 5", (4, 14, 18, 512), 512, dilation=4),
    Layer("v3, stage 5", (4, 14, 18, 512), 512, dilation=8),
    Layer("v3, ASPP", (4, 14, 18, 2048), 256, dilation=6),
    Layer("v3, ASPP", (4, 14, 18, 2048), 256, dilation=12),
    Layer("v3 at stride 8, ASPP", (4, 28, 36, 2048), 256, dilation=12),
    Layer("v3 at stride 8, ASPP", (4, 28, 36, 2048), 256, dilation=24),
    Layer("v1, fc6", (4, 28, 36, 512), 1024, dilation=12),
    Layer("MobileNetV2, block 1", (8, 112, 144, 96), 0, stride=2),
    Layer("MobileNetV2, block 2", (8, 56, 72, 144), 0),
    Layer("MobileNetV2, block 11", (8, 14, 18, 576), 0),
    Layer("MobileNetV2, block 14", (8, 14, 18, 960), 0, dilation=2),
)


def xla(x: jax.Array, kernel: jax.Array, *, stride, dilation, pads) -> jax.Array:
    """XLA's convolution, depthwise where the kernel has one input channel and x more."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=convolution.DIMENSIONS,
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


def taps(x: jax.Array, kernel: jax.Array, *, stride, dilation, pads) -> jax.Array:
    """A sum of 1 x 1 convolutions, one a tap."""
    x = jax.lax.pad(x, 0.0, ((0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)))
    reach = (kernel.shape[0] - 1) * dilation
    total = 0
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            first = (i * dilation, j * dilation)
            rows, cols = (
                slice(a, n - reach + a, stride)
                for a, n in zip(first, x.shape[1:3], strict=True)
            )  # fmt: skip
            total = total + x[:, rows, cols] @ kernel[i, j]
    return total


def segjax(x: jax.Array, kernel: jax.Array, *, stride, dilation, pads) -> jax.Array:
    """The form that the networks take."""
    if kernel.shape[2] != x.shape[3]:
        return depthwise.depthwise(x, kernel, stride, dilation, pads)
    return convolution.convolve(x, kernel, stride=stride, dilation=dilation, pads=pads)


def programs(layer: Layer) -> dict[str, dict[str, Callable[[], Any]]]:
    """Direction -> form -> a function that computes and waits."""
    rng = np.random.default_rng(0)
    channels = layer.shape[3]
    between = (channels, layer.features) if layer.features else (1, channels)
    shape = (layer.size, layer.size, *between)
    x, kernel = (jnp.asarray(rng.normal(0, 1, s).astype(np.float32)) for s in (layer.shape, shape))
    forms = {"xla": xla, "segjax": segjax} | ({"taps": taps} if layer.features else {})
    found = {"forward": {}, "backward": {}}
    for name, form in forms.items():
        form = functools.partial(form, **layer.options)
        cotangent = jnp.ones(jax.eval_shape(form, x, kernel).shape, jnp.float32)
        forward = jax.jit(form)
        backward = jax.jit(lambda x, k, g, form=form: jax.vjp(form, x, k)[1](g))
        found["forward"][name] = functools.partial(_wait, forward, x, kernel)
        found["backward"][name] = functools.partial(_wait, backward, x, kernel, cotangent)
    return found


def _wait(program: Callable, *arguments: jax.Array) -> Any:
    return jax.block_until_ready(program(*arguments))


def measure(layer: Layer, rounds: int) -> dict[str, dict[str, float]]:
    """Direction -> form -> milliseconds, medians."""
    found = {}
    for direction, forms in programs(layer).items():
        results = {name: jax.tree.leaves(program()) for name, program in forms.items()}
        for name, result in results.items():
            for a, b in zip(result, results["xla"], strict=True):
                error = float(jnp.abs(a - b).max() / jnp.abs(b).max())
                if not error < BOUND:
                    raise SystemExit(f"{layer}, {direction}: {name} differs by {error}.")
        times = {name: [] for name in forms}
        for i in range(rounds):
            for name in list(forms)[:: 1 if i % 2 else -1]:
                start = time.perf_counter()
                forms[name]()
                times[name].append(1000 * (time.perf_counter() - start))
        found[direction] = {name: statistics.median(values) for name, values in times.items()}
    return found


def main() -> None:
    """Measures every layer and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layers", type=int, default=len(LAYERS), help="the first of them")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    given = parser.parse_args()
    rows = []
    for i, layer in enumerate(LAYERS[: given.layers]):
        rows.append({"layer": layer._asdict(), "ms": measure(layer, given.rounds)})
        print(f"{i + 1}/{given.layers} {layer.name}: {rows[-1]['ms']}", flush=True)
    result = pages.circumstances(COMMAND, given.hardware) | {
        "load_average": os.getloadavg(),
        "rounds": given.rounds,
        "rows": rows,
    }
    files.write_json(given.output / "forms.json", result)
    pages.write(given.output / "README.md", page(result))


def page(result: dict[str, Any]) -> list[str]:
    """The paragraphs of the page."""
    rows = []
    for row in result["rows"]:
        layer, cells = Layer(**row["layer"]), []
        for times in row["ms"].values():
            cells += [f"{times[name]:.1f}" if name in times else "-" for name in FORMS]
            cells.append(f"**{times['xla'] / times['segjax']:.1f}**")
        shape = " x ".join(map(str, layer.shape))
        to = str(layer.features or "depthwise")
        rows.append([layer.name, shape, to, str(layer.stride), str(layer.dilation), *cells])
    forms = ("taps", "segjax", "XLA / segjax")
    head = ("layer", "input", "to", "stride", "rate", "forward: XLA", *forms)
    return [
        "# Single convolutions on a CPU",
        pages.block(COMMAND),
        f"{result['hardware']}; {result['date']}; {pages.software(result['versions'])}. "
        f"{pages.made(result, COMMAND)}",
        f"Milliseconds, float32, medians of {result['rounds']} rounds, all forms in turn; load "
        f"average of the machine {result['load_average'][0]:.1f}. Backward is the gradient of "
        "input and kernel; for the stems, a network needs the gradient of the kernel alone.",
        pages.table((*head, "backward: XLA", *forms), rows),
    ]


if __name__ == "__main__":
    main()
