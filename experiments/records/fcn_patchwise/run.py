"""A classifier on every patch of an image against the same classifier run fully convolutionally.

    python -m experiments.records.fcn_patchwise.run --hardware="2 CPU cores"

Long, Shelhamer, Darrell 2015, section 3.1: both give the same scores, but neighbouring patches
overlap, and only the convolutional form computes what they share once. Scores that lie closer than
the network's stride come from shifted images (shift-and-stitch, section 3.2). Writes patchwise.json
and README.md beside this file.
"""

import argparse
import datetime
import functools
import itertools
import json
import pathlib
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from segjax.models import functional, layers
from segjax.runs import run_folder

SIZE = (192, 256)
STRIDES = (64, 32, 16, 8, 4, 2, 1)
BATCH = 64
NET = {"widths": (8, 16, 32), "depth": 2, "fc_kernel": 7, "fc_width": 64, "num_classes": 10}
REPEATS = 5


class PatchNet(nnx.Module):
    """VGG in small, without padding: so many 3 x 3 convolutions and a pooling a stage, then fc.

    Args:
        widths: channels of each stage.
        depth: convolutions in each stage.
        fc_kernel, fc_width: side and channels of the first fully connected layer.
        num_classes: K.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        depth: int,
        fc_kernel: int,
        fc_width: int,
        num_classes: int,
        rngs: nnx.Rngs,
    ):
        stages, features = [], 3
        for width in widths:
            blocks = []
            for _ in range(depth):
                norm = {"name": "none"}
                blocks.append(
                    layers.ConvBlock(features, width, kernel=3, padding=0, norm=norm, rngs=rngs)
                )
                features = width
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.fc = layers.Conv(
            features, fc_width, kernel=fc_kernel, padding=0, use_bias=True, rngs=rngs
        )
        self.score = nnx.Conv(
            fc_width, num_classes, (1, 1), padding="VALID", kernel_init=layers.he_normal, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, h, w, K]; a patch of `geometry` pixels gives [B, 1, 1, K]."""
        for stage in self.stages:
            for block in stage:
                x = block(x)
            x = layers.max_pool_2x2(x)
        return self.score(nnx.relu(self.fc(x)))


def geometry(*, widths: Sequence[int], depth: int, fc_kernel: int, **_) -> tuple[int, int]:
    """Side of the patch that one score sees, and pixels between neighbouring scores."""
    field = fc_kernel
    for _ in widths:
        field = 2 * field + 2 * depth
    return field, 2 ** len(widths)


def patchwise(net: Callable, image: jax.Array, *, field: int, stride: int, batch: int) -> jax.Array:
    """Scores of the patches that begin at every `stride`-th pixel: [H, W, 3] -> [n, m, K].

    `batch` patches are cut and classified at a time.
    """
    rows, cols = ((size - field) // stride + 1 for size in image.shape[:2])
    corners = stride * np.stack(np.divmod(np.arange(rows * cols), cols), axis=1)
    missing = -len(corners) % batch
    corners = np.concatenate([corners, np.repeat(corners[-1:], missing, axis=0)])

    def classify(corners):
        def cut(corner):
            return jax.lax.dynamic_slice(image, (*corner, 0), (field, field, 3))

        return net(jax.vmap(cut)(corners))[:, 0, 0]

    scores = jax.lax.map(classify, jnp.asarray(corners.reshape(-1, batch, 2)))
    return scores.reshape(-1, scores.shape[-1])[: rows * cols].reshape(rows, cols, -1)


def convolutional(
    net: Callable, image: jax.Array, *, field: int, stride: int, net_stride: int
) -> jax.Array:
    """The same scores from the whole image: [H, W, 3] -> [n, m, K].

    Strides above the network's take some of its map; below, its maps of shifted images interlace.
    """
    rows, cols = ((size - field) // stride + 1 for size in image.shape[:2])
    shifts = np.arange(0, net_stride, min(stride, net_stride))
    step = max(1, stride // net_stride)
    cells = [-(-((n - 1) * step + 1) // len(shifts)) for n in (rows, cols)]
    window = [field + (n - 1) * net_stride for n in cells]
    # What begins beyond the last patch is cropped again: its window may leave the image.
    image = jnp.pad(image, ((0, net_stride), (0, net_stride), (0, 0)))

    def score(shift):
        return net(jax.lax.dynamic_slice(image, (*shift, 0), (*window, 3))[None])[0]

    corners = np.array(list(itertools.product(shifts, shifts)), np.int32)
    maps = jax.lax.map(score, jnp.asarray(corners))
    maps = maps.reshape(len(shifts), len(shifts), *cells, -1).transpose(2, 0, 3, 1, 4)
    stitched = maps.reshape(cells[0] * len(shifts), cells[1] * len(shifts), -1)
    return stitched[::step, ::step][:rows, :cols]


def main() -> None:
    """Measures every stride and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    given = parser.parse_args()

    def build(rngs):
        return PatchNet(**NET, rngs=rngs)

    _, graph = functional.graphs(build)
    params, _ = functional.initial_arrays(build, 0)
    image = jax.random.normal(jax.random.key(1), (*SIZE, 3))
    rows = [measure(graph, params, image, stride) for stride in STRIDES]
    root = pathlib.Path(__file__).parents[3]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    field, net_stride = geometry(**NET)
    result = {
        "command": "python -m experiments.records.fcn_patchwise.run --hardware=TEXT",
        "hardware": given.hardware,
        "date": str(datetime.date.today()),
        "commit": commit,
        "versions": run_folder.versions(),
        "net": NET | {"field": field, "stride": net_stride},
        "size": SIZE,
        "batch": BATCH,
        "repeats": REPEATS,
        "rows": rows,
    }
    folder = pathlib.Path(__file__).parent
    (folder / "patchwise.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "README.md").write_text(page(result))


def measure(graph: Any, params: Any, image: jax.Array, stride: int) -> dict[str, Any]:
    """Both forms in turn: median seconds, temporary bytes, how far apart their scores are."""
    field, net_stride = geometry(**NET)
    count = int(np.prod([(size - field) // stride + 1 for size in SIZE]))
    cut = {"field": field, "stride": stride}
    forms = {
        "patchwise": functools.partial(patchwise, batch=min(BATCH, count), **cut),
        "at_once": functools.partial(patchwise, batch=count, **cut),
        "convolutional": functools.partial(convolutional, net_stride=net_stride, **cut),
    }

    def compiled(form):
        def run(params, image):
            return form(functional.merge(graph, params, {}), image)

        return jax.jit(run).lower(params, image).compile()

    programs = {name: compiled(form) for name, form in forms.items()}
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


def page(result: dict[str, Any]) -> str:
    """The page in Markdown."""
    net, (height, width) = result["net"], result["size"]
    software = ", ".join(f"{k} {v}" for k, v in result["versions"].items() if k != "devices")
    head = (
        "| stride | scores | patches, s | convolutional, s | ratio | patches, MiB "
        "| all patches at once, MiB | convolutional, MiB | difference |"
    )
    lines = [head, "|" + "---|" * 9]
    for row in result["rows"]:
        slow, fast = row["patchwise_seconds"], row["convolutional_seconds"]
        memory = [row[f"{form}_bytes"] / 2**20 for form in ("patchwise", "at_once")]
        lines.append(
            f"| {row['stride']} | {row['scores']} | {slow:.3f} | {fast:.3f} | {slow / fast:.1f} "
            f"| {memory[0]:.1f} | {memory[1]:.1f} | {row['convolutional_bytes'] / 2**20:.1f} "
            f"| {row['difference']:.1g} |"
        )
    parts = [
        "# Why fully convolutional",
        f"```bash\n{result['command']}\n```",
        f"{result['hardware']}; {result['date']}; {software}; made on top of commit "
        f"{result['commit']}.",
        f"A VGG in small ({net['depth']} unpadded convolutions and a pooling in each of "
        f"{len(net['widths'])} stages of {', '.join(map(str, net['widths']))} channels, fc of "
        f"{net['fc_kernel']} x {net['fc_kernel']} and {net['fc_width']} channels, "
        f"{net['num_classes']} classes) sees patches of {net['field']} x {net['field']}; run on a "
        f"larger image it gives a score every {net['stride']} pixels. On an image of {height} x "
        f"{width}: the classifier on each patch that begins at a multiple of the stride, in "
        f"batches of {result['batch']}, against one pass over the image, or below a stride of "
        f"{net['stride']} one pass for each shift. Medians of {result['repeats']}, both in turn; "
        "temporary memory as the compiled program states it; largest difference of the scores, of "
        "the largest score.",
        "\n".join(lines),
        "Above the network's stride the patches overlap less, and the pass over the image computes "
        "scores that are thrown away. Below it the convolutional form too repeats itself, once a "
        "shift: what grows is time, not memory.",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
