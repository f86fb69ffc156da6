"""Two commits timed against each other: start-up, training step, evaluation.

    python -m experiments.benchmarks.commits.bench --old=DIR [--new=DIR] --hardware=TEXT

`--old` and `--new` are checkouts of two commits, the second this one by default; one may be that of
commit 26ab59c, whose modules had other names. Each round times both in turn, in processes of their
own that share one compilation cache, FCN-8s on the scenes: the start-up to the end of the first
step; the median training step of 40, batches at hand; the median evaluation of 48 images of three.
Writes times.json and README.md beside this file.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from experiments.shared import pages
from segjax import files

COMMAND = "python -m experiments.benchmarks.commits.bench --old=DIR --hardware=TEXT"

_MEASURE = """
import statistics, sys, time
begin = time.perf_counter()
import jax
{imports}
config = fcn8s.get_config("")
config.eval.limit = 48
{build}
{batches}
batch = put(next(batches))
{compile}
ts, scalars = step(ts, batch)
jax.block_until_ready(scalars)
startup = time.perf_counter() - begin
steps = []
for _ in range(40):
    start = time.perf_counter()
    ts, scalars = step(ts, batch)
    jax.block_until_ready(scalars)
    steps.append(time.perf_counter() - start)
evaluate(ts)
evaluations = []
for _ in range(3):
    start = time.perf_counter()
    evaluate(ts)
    evaluations.append(time.perf_counter() - start)
print("TIMES", startup, statistics.median(steps), statistics.median(evaluations))
"""
_SIDES = {
    "old": {
        "imports": "from configs import fcn8s\n"
        "from segjax import evaluation, experiment, state\nfrom segjax.data import catalog",
        "build": """
dataset = catalog.load(**config.data)
train = experiment.open_split(dataset, config, "train")
val = experiment.open_split(dataset, config, "val")
parts = experiment.assemble(config, dataset.spec, None)
ts = parts.initial_state()
how = evaluation.protocol(parts, "val", val.scan.sizes)
evaluator = evaluation.Evaluator(parts, val.source, val.scan.sizes, how)
evaluate = lambda ts: evaluator(ts.params, ts.batch_stats)
""",
        "batches": "batches = experiment.train_batches(parts, train, first_step=0)\n"
        "put = lambda rows: state.put_batch(parts.mesh, rows)",
        "compile": "step = parts.train_step.lower(ts, batch).compile()",
    },
    "new": {
        "imports": "import pathlib, tempfile\nfrom segjax import sharding\n"
        "from segjax.configs import fcn8s\nfrom segjax.network import Network\n"
        "from segjax.training import acceptance, inputs",
        "build": """
accepted = acceptance.accept(config, pathlib.Path(tempfile.mkdtemp()) / "run")
training = accepted.training
ts = training.initial_state()
evaluate = lambda ts: accepted.evaluator(Network(ts.params, ts.batch_stats, training.model))
""",
        "batches": "batches = inputs.train_batches(training, accepted.train, first_step=0)\n"
        "put = lambda rows: sharding.put_batch(training.mesh, rows)",
        "compile": "step = accepted.step.compile()",
    },
}
KINDS = ("start-up", "training step", "evaluation")


def main() -> None:
    """Times both sides in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--old", required=True, type=pathlib.Path, help="a checkout")
    parser.add_argument("--new", default=pages.ROOT, type=pathlib.Path, help="another checkout")
    parser.add_argument("--hardware", required=True, help="in words")
    parser.add_argument("--rounds", default=7, type=int, help="of both sides")
    parser.add_argument("--output", default=pathlib.Path(__file__).parent, type=pathlib.Path)
    given = parser.parse_args()
    checkouts = {"old": given.old, "new": given.new}
    times: dict[str, list[list[float]]] = {side: [] for side in checkouts}
    with tempfile.TemporaryDirectory() as cache:
        for turn in range(given.rounds + 1):  # the first fills the cache
            for side in sorted(checkouts, reverse=bool(turn % 2)):
                seconds = _measured(checkouts[side], cache)
                print(turn, side, [f"{x:.4f}" for x in seconds], flush=True)
                if turn:
                    times[side].append(seconds)
    rows = {}
    for index, kind in enumerate(KINDS):
        pairs = [(a[index], b[index]) for a, b in zip(times["old"], times["new"], strict=True)]
        rows[kind] = {
            "old_s": statistics.median(a for a, _ in pairs),
            "new_s": statistics.median(b for _, b in pairs),
            "ratio": statistics.median(b / a for a, b in pairs),
            "ratios": [b / a for a, b in pairs],
        }
    commits = {side: pages.commit(checkout) for side, checkout in checkouts.items()}
    result = pages.circumstances(COMMAND, given.hardware) | {"commits": commits, "times": rows}
    files.write_json(given.output / "times.json", result)
    pages.write(given.output / "README.md", page(result))


def _measured(checkout: pathlib.Path, cache: str) -> list[float]:
    """Seconds of the three kinds."""
    side = "new" if (checkout / "segjax" / "training").is_dir() else "old"
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE.format(**_SIDES[side])],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("TIMES")]
    return [float(word) for word in line.split()[1:]]


def page(result: dict) -> list[str]:
    """The paragraphs of the page."""
    rows = [
        [
            kind,
            *(f"{1000 * row[key]:.1f} ms" for key in ("old_s", "new_s")),
            f"{row['ratio']:.3f} ({min(row['ratios']):.3f} to {max(row['ratios']):.3f})",
        ]
        for kind, row in result["times"].items()
    ]
    rounds = len(result["times"]["evaluation"]["ratios"])
    return [
        "# Commit by commit, timed",
        pages.block(COMMAND),
        f"{result['hardware']}; {result['date']}; {pages.software(result['versions'])}. "
        f"{pages.made(result, COMMAND)}",
        f"Commit `{result['commits']['new']}` beside `{result['commits']['old']}`: FCN-8s on the "
        f"scenes, medians of {rounds} rounds that time both in turn. The start-up ends with the "
        "first step; the training step has its batch at hand; the evaluation is of 48 images.",
        pages.table(("", "before", "after", "ratio, median (least to most)"), rows),
    ]


if __name__ == "__main__":
    main()
