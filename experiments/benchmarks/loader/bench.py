"""The rate of the loader alone, beside that of the training step alone.

    python -m experiments.benchmarks.loader.bench --hardware="2 CPU cores"

Measures images/s of one process's pipeline (grain, threads, no device) and of the training step
(its batch already on the device), in turn, medians of five. Writes loader.json and README.md beside
this file, or into `--output`.
"""

import argparse
import importlib
import json
import statistics
import time

import jax

from segjax import sharding
from segjax.data import catalog
from segjax.runs import run_folder
from segjax.training import assembly


def main() -> None:
    """Measures the recipe, loader and step in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="fcn8s")
    parser.add_argument("--variants", default="")
    parser.add_argument("--batches", type=int, default=40, help="of the loader, each time")
    given = parser.parse_args()
    config = importlib.import_module(f"segjax.configs.{given.recipe}").get_config(given.variants)
    dataset = catalog.load(**config.data)
    split = assembly.open_split(dataset, config, config.train_split)
    parts = assembly.assemble(config, dataset.spec, assembly.weights_of(config, split.scan))
    ts = parts.initial_state()
    batches = assembly.train_batches(parts, split, first_step=0)
    ready = sharding.put_batch(parts.mesh, next(batches))
    ts, _ = jax.block_until_ready(parts.train_step(ts, ready))
    loads, steps = [], []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(given.batches):
            next(batches)
        loads.append(given.batches * config.batch_size / (time.perf_counter() - start))
        start = time.perf_counter()
        ts, _ = jax.block_until_ready(parts.train_step(ts, ready))
        steps.append(config.batch_size / (time.perf_counter() - start))
    load, step = statistics.median(loads), statistics.median(steps)
    print(
        json.dumps(
            {
                "recipe": f"{given.recipe}:{given.variants}",
                "loader_images_per_s": round(load, 1),
                "step_images_per_s": round(step, 1),
                "ratio": round(load / step, 1),
            }
            | run_folder.versions(),
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
