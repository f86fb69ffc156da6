"""The rate of the loader alone, beside that of the training step alone.

    python -m experiments.benchmarks.loader.bench --hardware="2 CPU cores"

Measures images/s of one process's pipeline (grain, threads, no device) and of the training step
(its batch already on the device), in turn, medians of five. Writes loader.json and README.md beside
this file, or into `--output`.
"""

import argparse
import pathlib
import statistics
import time

import jax

from experiments.shared import pages
from segjax import files, sharding
from segjax.configuration import loading
from segjax.data import catalog
from segjax.data.splits import open_split
from segjax.training import assembly, inputs

COMMAND = "python -m experiments.benchmarks.loader.bench --hardware=TEXT"


def main() -> None:
    """Measures a recipe, loader and step in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--config", default="fcn8s", help="a recipe, with its words")
    parser.add_argument("--batches", type=int, default=40, help="of the loader, each time")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    given = parser.parse_args()
    loads, steps = measure(given.config, given.batches)
    load, step = statistics.median(loads), statistics.median(steps)
    result = pages.circumstances(f"{COMMAND} --config={given.config}", given.hardware) | {
        "recipe": given.config,
        "loader_images_per_s": round(load, 1),
        "step_images_per_s": round(step, 1),
        "ratio": round(load / step, 1),
    }
    files.write_json(given.output / "loader.json", result)
    pages.write(given.output / "README.md", page(result))


def measure(recipe: str, count: int) -> tuple[list[float], list[float]]:
    """Images/s of the loader and of the step, five times each."""
    config = loading.load(recipe)
    dataset = catalog.load(**config.data)
    split = open_split(dataset, config.train_split, cache=config.loader.cache)
    weights = inputs.weights_of_classes(config.loss.class_weights, split)
    training = assembly.assemble(config, dataset.spec, weights)
    ts = training.initial_state()
    batches = inputs.train_batches(training, split, first_step=0)
    ready = sharding.put_batch(training.mesh, next(batches))
    ts, _ = jax.block_until_ready(training.step(ts, ready))
    loads, steps = [], []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(count):
            next(batches)
        loads.append(count * config.batch_size / (time.perf_counter() - start))
        start = time.perf_counter()
        ts, _ = jax.block_until_ready(training.step(ts, ready))
        steps.append(config.batch_size / (time.perf_counter() - start))
    return loads, steps


def page(result: dict) -> list[str]:
    """The paragraphs of the page."""
    now = f"{COMMAND} --config={result['recipe'].rstrip(':')}"
    where = [result.get("hardware", ""), result.get("date", "")]
    if "versions" in result:
        where.append(pages.software(result["versions"]))
    where = "; ".join(filter(None, where))
    row = [result["recipe"].rstrip(":")]
    row += [str(result[f"{part}_images_per_s"]) for part in ("loader", "step")]
    return [
        "# The loader alone and the training step alone",
        pages.block(now),
        f"{where + '. ' if where else ''}{pages.made(result, now)}",
        pages.table(
            ("recipe", "loader, images/s", "training step, images/s", "ratio"),
            [[*row, str(result["ratio"])]],
        ),
    ]


if __name__ == "__main__":
    main()
