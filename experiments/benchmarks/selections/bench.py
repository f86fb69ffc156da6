"""The memory that SegNet's encoder keeps of its poolings for the decoder, by the compiler.

    python -m experiments.benchmarks.selections.bench --hardware=TEXT

The five poolings of the encoder see one image of 360 x 480. Compared are the bytes handed on by a
program that makes our packed selections, and by one that makes each argmax's place in the plane, an
int32 (as Caffe does; PyTorch's are int64). Writes selections.json and README.md beside this file,
or into `--output`.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp

from experiments.shared import pages
from segjax import files
from segjax.models import layers, unpooling

COMMAND = "python -m experiments.benchmarks.selections.bench --hardware=TEXT"
SIZE, WIDTHS = (360, 480), (64, 128, 256, 512, 512)


def maps() -> list[jax.ShapeDtypeStruct]:
    """The input of each pooling: float32 [1, h, w, C]."""
    size, inputs = SIZE, []
    for width in WIDTHS:
        inputs.append(jax.ShapeDtypeStruct((1, *size, width), jnp.float32))
        size = tuple(-(-n // 2) for n in size)
    return inputs


def as_indices(x: jax.Array):
    """Pooled, and int32 [B, ceil(H/2), ceil(W/2), C]: places in the H W plane."""
    width = x.shape[2]
    x = layers.to_even(x)
    rows, cols = x.shape[1] // 2, x.shape[2] // 2
    corners = jnp.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    best = jnp.argmax(corners, axis=0).astype(jnp.int32)
    down = 2 * jnp.arange(rows, dtype=jnp.int32)[:, None, None] + best // 2
    across = 2 * jnp.arange(cols, dtype=jnp.int32)[:, None] + best % 2
    return jnp.max(corners, axis=0), down * width + across


def measure(pool) -> dict[str, int]:
    """Bytes of what is kept, and of a program that pools and hands everything on."""
    kept = 0
    for x in maps():
        _, selection = jax.eval_shape(pool, x)
        kept += sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(selection))
    compiled = jax.jit(lambda xs: [pool(x)[1] for x in xs]).lower(maps()).compile()
    analysis = compiled.memory_analysis()
    return {"kept": kept, "output_by_the_compiler": analysis.output_size_in_bytes}


def main() -> None:
    """Measures both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    given = parser.parse_args()
    result = pages.circumstances(COMMAND, given.hardware) | {
        "packed": measure(unpooling.max_pool),
        "int32": measure(as_indices),
    }
    outputs = [result[name]["output_by_the_compiler"] for name in ("packed", "int32")]
    result["share"] = outputs[0] / outputs[1]
    files.write_json(given.output / "selections.json", result)
    pages.write(given.output / "README.md", page(result))


def page(result: dict) -> list[str]:
    """The paragraphs of the page."""
    rows = [
        [name, *(f"{result[key][kind] / 2**20:.2f}" for kind in ("kept", "output_by_the_compiler"))]
        for name, key in (("packed, two bits a value", "packed"), ("int32 places", "int32"))
    ]
    height, width = SIZE
    return [
        "# What SegNet keeps of its poolings",
        pages.block(COMMAND),
        f"{result['hardware']}; {result['date']}; {pages.software(result['versions'])}. "
        f"{pages.made(result, COMMAND)}",
        f"The five poolings of the encoder for an image of {height} x {width}. The packed form "
        f"takes {result['share']:.4f} of the int32 places, a sixteenth.",
        pages.table(("form", "kept, MiB", "handed on by the program, MiB"), rows),
    ]


if __name__ == "__main__":
    main()
