"""The two forms of forms.py, timed against each other, with the memory that they take.

    python -m experiments.records.fcn_patchwise.run --hardware="2 CPU cores"

Writes patchwise.json and README.md beside this file, or into `--output`; `--strides` takes some of
the strides alone (1 takes minutes).
"""

import argparse
import functools
import pathlib
import statistics
import time
from typing import Any

import jax
import numpy as np

from experiments.records.fcn_patchwise import forms
from experiments.shared import pages
from segjax import files
from segjax.models import functional

SIZE = (192, 256)
STRIDES = (64, 32, 16, 8, 4, 2, 1)
BATCH = 64
NET = {"widths": (8, 16, 32), "depth": 2, "fc_kernel": 7, "fc_width": 64, "num_classes": 10}
REPEATS = 5
COMMAND = "python -m experiments.records.fcn_patchwise.run --hardware=TEXT"
HEAD = (
    "stride",
    "scores",
    "patches, s",
    "convolutional, s",
    "ratio",
    "patches, MiB",
    "all patches at once, MiB",
    "convolutional, MiB",
    "difference",
)


def main() -> None:
    """Measures every stride and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--strides", type=int, nargs="+", default=STRIDES)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    given = parser.parse_args()

    def build(rngs):
        return forms.PatchNet(**NET, rngs=rngs)

    graph = functional.graphs(build).inference
    params, _ = functional.initial_arrays(build, 0)
    image = jax.random.normal(jax.random.key(1), (*SIZE, 3))
    rows = [measure(graph, params, image, stride) for stride in given.strides]
    field, net_stride = forms.geometry(**NET)
    result = pages.circumstances(COMMAND, given.hardware) | {
        "net": NET | {"field": field, "stride": net_stride},
        "size": SIZE,
        "batch": BATCH,
        "repeats": REPEATS,
        "rows": rows,
    }
    files.write_json(given.output / "patchwise.json", result)
    pages.write(given.output / "README.md", page(result))


def measure(graph: Any, params: Any, image: jax.Array, stride: int) -> dict[str, Any]:
    """Both forms in turn: median seconds, temporary bytes, the difference of their scores."""
    field, net_stride = forms.geometry(**NET)
    count = int(np.prod([(size - field) // stride + 1 for size in SIZE]))
    cut = {"field": field, "stride": stride}
    both = {
        "patchwise": functools.partial(forms.patchwise, batch=min(BATCH, count), **cut),
        "at_once": functools.partial(forms.patchwise, batch=count, **cut),
        "convolutional": functools.partial(forms.convolutional, net_stride=net_stride, **cut),
    }

    def compiled(form):
        def run(params, image):
            return form(functional.merge(graph, params, {}), image)

        return jax.jit(run).lower(params, image).compile()

    programs = {name: compiled(form) for name, form in both.items()}
    row = {"stride": stride, "scores": count}
    for name, program in programs.items():
        row[f"{name}_bytes"] = program.memory_analysis().temp_size_in_bytes
    del programs["at_once"]  # its memory alone is of interest
    first = {name: np.asarray(program(params, image)) for name, program in programs.items()}
    a, b = first.values()
    row["difference"] = float(np.abs(a - b).max() / np.abs(b).max())
    seconds = {name: [] for name in programs}
    for _ in range(REPEATS):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(params, image))
            seconds[name].append(time.perf_counter() - start)
    return row | {f"{name}_seconds": statistics.median(s) for name, s in seconds.items()}


def page(result: dict[str, Any]) -> list[str]:
    """The paragraphs of the page."""
    net, (height, width) = result["net"], result["size"]
    rows = []
    for row in result["rows"]:
        slow, fast = row["patchwise_seconds"], row["convolutional_seconds"]
        names = ("patchwise", "at_once", "convolutional")
        memory = [f"{row[f'{name}_bytes'] / 2**20:.1f}" for name in names]
        seconds = [f"{slow:.3f}", f"{fast:.3f}", f"{slow / fast:.1f}"]
        rows.append(
            [str(row["stride"]), str(row["scores"]), *seconds, *memory, f"{row['difference']:.1g}"]
        )
    return [
        "# Why fully convolutional",
        pages.block(COMMAND),
        f"{result['hardware']}; {result['date']}; {pages.software(result['versions'])}. "
        f"{pages.made(result, COMMAND)}",
        f"A small VGG ({net['depth']} unpadded convolutions and a pooling in each of "
        f"{len(net['widths'])} stages of {', '.join(map(str, net['widths']))} channels, fc of "
        f"{net['fc_kernel']} x {net['fc_kernel']} and {net['fc_width']} channels, "
        f"{net['num_classes']} classes) sees patches of {net['field']} x {net['field']}. Run on a "
        f"larger image it gives a score every {net['stride']} pixels. On an image of {height} x "
        f"{width} the classifier runs on each patch that begins at a multiple of the stride, in "
        f"batches of {result['batch']}. Against it stands one pass over the image, or, below a "
        f"stride of {net['stride']}, one pass for each shift. Times are medians of "
        f"{result['repeats']}, both forms in turn; temporary memory is what the compiled program "
        "states; the difference is the largest between the scores, relative to the largest score.",
        pages.table(HEAD, rows),
        "Above the network's stride the patches overlap less, and the pass over the image computes "
        "scores that are thrown away. Below it the convolutional form repeats itself as well, once "
        "a shift: time grows, memory does not.",
    ]


if __name__ == "__main__":
    main()
