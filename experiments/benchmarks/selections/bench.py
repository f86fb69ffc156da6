"""What is kept of SegNet's poolings for its decoder, by the compiler's analysis:

    python -m experiments.benchmarks.selections.bench --hardware=TEXT

The five poolings of the encoder for one image of 360 x 480: the bytes that a program hands on which
makes our packed selections, and of one that makes each argmax's place in the plane, an int32 (as
Caffe does; PyTorch's are int64). Writes selections.json.
"""

import argparse
import datetime
import json
import pathlib

import jax
import jax.numpy as jnp

from segjax.models import layers, unpooling
from segjax.runs.run_folder import versions

FOLDER = pathlib.Path(__file__).parent
SIZE, WIDTHS = (360, 480), (64, 128, 256, 512, 512)


def maps() -> list[jax.ShapeDtypeStruct]:
    """What each pooling sees: float32 [1, h, w, C]."""
    size, found = SIZE, []
    for width in WIDTHS:
        found.append(jax.ShapeDtypeStruct((1, *size, width), jnp.float32))
        size = tuple(-(-n // 2) for n in size)
    return found


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
    given = parser.parse_args()
    result = {
        "hardware": given.hardware,
        "date": str(datetime.date.today()),
        "versions": versions(),
        "packed": measure(unpooling.max_pool),
        "int32": measure(as_indices),
    }
    outputs = [result[name]["output_by_the_compiler"] for name in ("packed", "int32")]
    result["share"] = outputs[0] / outputs[1]
    (FOLDER / "selections.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
