"""Every recipe on one photograph and on 64 together: milliseconds an image, for an accelerator.

SEGJAX_DATA=DIR python -m experiments.benchmarks.classical.batched --output=batched.json
"""

import argparse
import functools
import importlib
import pathlib

import jax
import numpy as np

from experiments.benchmarks.classical import bsds500
from experiments.shared import timing
from segjax import classical, files, sharding
from segjax.classical import batches
from segjax.runs import run_folder

RECIPES = ("slic", "kmeans", "spectral", "ncut_regions", "felzenszwalb", "grabcut")


def main() -> None:
    """Writes a list of rows; a recipe that fails is a row with its error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    given = parser.parse_args()
    examples = [e for e in bsds500.examples(0) if e.image.shape[:2] == (321, 481)]
    images = np.stack([examples[i % len(examples)].image for i in range(given.batch)])
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    rows = []
    for name in given.recipes.split(","):
        config = importlib.import_module(f"segjax.configs.{name}").get_config("bsds500")
        method = classical.build(**config.method)
        arrays = [images]
        if classical.takes_box(method):
            box = np.array([40, 60, 281, 421], np.int32)
            arrays.append(np.tile(box, (given.batch, 1)))
        row = {"recipe": name, "batch": given.batch, **run_folder.versions()}
        for key, count in (("single", 1), ("batched", given.batch)):
            placed = [jax.device_put(array[:count]) for array in arrays]
            program = functools.partial(batches.over_batch(method, mesh), *placed)
            try:
                (ms,) = timing.median_ms(
                    lambda p=program: p().block_until_ready(), rounds=given.rounds
                )
                row[f"{key}_ms_per_image"] = ms / count
            except Exception as error:  # the others are still worth their device time
                row[f"{key}_error"] = str(error)[:300]
        rows.append(row)
        print(row, flush=True)
        files.write_json(given.output, rows)


if __name__ == "__main__":
    main()
