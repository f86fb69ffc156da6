"""The five parameters of a CRF behind a trained network: by a grid, and by gradient from its best.

    SEGJAX_DATA=DIR python -m experiments.records.crf.tune --workdir=RUN --output=FILE.json \
        --hardware=TEXT

DeepLab searches w1, theta_alpha and theta_beta on 100 validation images, coarse to fine. Here one
compiled program scores the whole grid on an image: kernels are built once for all weights. The
gradient goes through all iterations, the lattices' weights and the normalisation to the logarithms
of all five; it lowers the cross-entropy of the marginals, which is not mIoU.
"""

import argparse
import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.shared import pages
from segjax import files, network
from segjax.crf import DenseCrf, kernels, mean_field
from segjax.data import catalog
from segjax.data.sources import Source
from segjax.losses import pixels
from segjax.metrics import confusion
from segjax.models import resize
from segjax.runs import progress

PARAMETERS = ("w1", "theta_alpha", "theta_beta", "w2", "theta_gamma")
GRID = {
    "w1": (1.0, 2.0, 5.0),
    "theta_alpha": (10.0, 30.0, 60.0),
    "theta_beta": (4.0, 8.0),
    "w2": (1.0, 3.0),
    "theta_gamma": (1.0, 3.0),
}

Example = tuple[np.ndarray, np.ndarray, np.ndarray]
"""image uint8 [H, W, 3], logits float32 [H, W, K], truth uint8 [H, W]."""


def main() -> None:
    """Tunes, and writes the grid, the best point and the descent from there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=12, help="spread over the split")
    parser.add_argument("--steps", type=int, default=60, help="of the gradient, an image each")
    parser.add_argument("--lr", type=float, default=0.05, help="of the parameters' logarithms")
    given = parser.parse_args()
    run = network.load(given.workdir)
    source = catalog.load(**run.config.data).splits[given.split]
    examples = list(examples_of(run.network, source, given.images))
    alone = score(examples, None)
    rows = search(examples, GRID)
    best = max(rows, key=lambda row: row["miou"])
    start = DenseCrf(**{key: best[key] for key in PARAMETERS})
    tuned, losses = descend(examples, start, given.steps, given.lr)
    found = {
        "network": alone["miou"],
        "network_loss": alone["loss"],
        "grid": rows,
        "best": best,
        "gradient": {
            **{key: float(getattr(tuned, key)) for key in PARAMETERS},
            "losses": losses,
            **score(examples, tuned),
        },
        "start": score(examples, start),
    }
    command = "python -m experiments.records.crf.tune --workdir=RUN --output=FILE.json"
    record = pages.circumstances(command, given.hardware) | {
        "run": given.workdir.name,
        "step": run.step,
        "split": given.split,
        "images": len(examples),
        **found,
    }
    files.write_json(given.output, record)
    shown = {key: found[key] for key in ("network", "best", "gradient")}
    shown["gradient"] = {k: v for k, v in shown["gradient"].items() if k != "losses"}
    print(json.dumps(shown, indent=1))


def examples_of(net: network.Network, source: Source, count: int) -> Iterator[Example]:
    """Images spread over a split, with a network's logits at their size."""
    scores_of = jax.jit(network.Network.__call__)
    for index in np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int):
        image, truth = source[int(index)]
        seen = net.model.seen(truth.shape)
        shown = resize.resized(image[None].astype(np.float32), seen, resize.Resize("half_pixel"))
        scores = scores_of(net, shown)
        logits = resize.apply(scores.values, *scores.matrices(truth.shape, seen))[0]
        yield image, np.asarray(logits), truth


def search(examples: Sequence[Example], grid: dict[str, Sequence[float]]) -> list[dict]:
    """mIoU and loss of every point of a grid, the best first."""
    thetas = list(itertools.product(*(grid[key] for key in ("theta_alpha", "theta_beta"))))
    weights = list(itertools.product(*(grid[key] for key in ("w1", "w2"))))
    gammas = list(grid["theta_gamma"])
    capacity = vertices(examples, min(grid["theta_alpha"]), min(grid["theta_beta"]))
    arrays = [jnp.asarray(x, jnp.float32) for x in (thetas, gammas, weights)]
    line, total = progress.ProgressLine("image of the grid", len(examples)), None
    for done, example in enumerate(examples):
        found = _grid(*example, *arrays, capacity=capacity)
        found = {key: np.asarray(value, np.float64) for key, value in found.items()}
        total = found if total is None else jax.tree.map(np.add, total, found)
        line.show(done + 1)
    line.close()
    rows = []
    for (i, (alpha, beta)), (j, gamma), (k, (w1, w2)) in itertools.product(
        enumerate(thetas), enumerate(gammas), enumerate(weights)
    ):
        counts = total["confusion"][i, j, k].astype(np.int64)
        rows.append(
            dict(zip(PARAMETERS, (w1, alpha, beta, w2, gamma), strict=True))
            | {
                "miou": float(confusion.miou(confusion.marginals(counts))),
                "loss": float(total["loss"][i, j, k] / counts.sum()),
            }
        )
    return sorted(rows, key=lambda row: -row["miou"])


def vertices(examples: Sequence[Example], alpha: float, beta: float) -> int:
    """Vertices that the lattices of all images need; greater deviations need fewer."""

    @jax.jit
    def needed(image):
        one = kernels.bilateral(image, alpha, beta, capacity=1, normalization="none")
        return one.operator.needed

    return max(int(needed(image)) for image, _, _ in examples)


@functools.partial(jax.jit, static_argnames="capacity")
def _grid(image, logits, truth, thetas, gammas, weights, *, capacity) -> dict[str, jax.Array]:
    """Counts of one image, [thetas, gammas, weights, ...]."""
    size, classes = truth.shape, logits.shape[-1]
    unary = logits.reshape(-1, classes)

    def bilateral(theta):
        one = kernels.bilateral(image, *theta, capacity=capacity, normalization="after")
        return _each(lambda gamma: spatial(one, gamma), gammas)

    def spatial(one, gamma):
        two = kernels.spatial(size, gamma, by="lattice", normalization="after")
        return _each(lambda w: judged(one, two, w), weights)

    def judged(one, two, w):
        found = mean_field.infer(unary, (one, two), w, iterations=10)
        return _judge(found.reshape(logits.shape), truth)

    return _each(bilateral, thetas)


def _judge(logits: jax.Array, truth: jax.Array) -> dict[str, jax.Array]:
    prediction = jnp.argmax(logits, axis=-1).astype(jnp.uint8)
    return {
        "confusion": confusion.count(prediction, truth, logits.shape[-1]),
        "loss": jnp.sum(pixels.cross_entropy(logits, truth)),
    }


def _each(function: Callable, rows: jax.Array):
    """One after the other on a CPU, whose cache holds one table; all at once elsewhere."""
    return jax.lax.platform_dependent(
        rows, cpu=functools.partial(jax.lax.map, function), default=jax.vmap(function)
    )


def descend(
    examples: Sequence[Example], start: DenseCrf, steps: int, lr: float
) -> tuple[DenseCrf, list[float]]:
    """All five parameters by Adam on their logarithms, an image a step; the last third's mean.

    Returns:
        The CRF, and the loss of every step before it was taken.
    """
    optimizer = optax.adam(lr)
    logs = {key: jnp.log(max(getattr(start, key), 0.05)) for key in PARAMETERS}
    # Deviations may shrink on the way; a lattice without room gives NaN, which would show.
    capacity = vertices(examples, 0.5 * start.theta_alpha, 0.5 * start.theta_beta)

    @jax.jit
    def step(logs, moments, image, logits, truth):
        def loss(logs):
            crf = start.replace(**{key: jnp.exp(value) for key, value in logs.items()})
            found, _ = crf(image, logits, capacity=capacity)
            return jnp.sum(pixels.cross_entropy(found, truth)) / pixels.count(truth)

        value, gradient = jax.value_and_grad(loss)(logs)
        update, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(logs, update), moments, value

    moments, losses, kept = optimizer.init(logs), [], []
    line = progress.ProgressLine("step of the gradient", steps)
    for i in range(steps):
        logs, moments, value = step(logs, moments, *examples[i % len(examples)])
        losses.append(float(value))
        kept.append({key: float(value) for key, value in logs.items()})
        line.show(i + 1)
    line.close()
    last = kept[-max(1, steps // 3) :]
    tuned = {key: float(np.exp(np.mean([one[key] for one in last]))) for key in PARAMETERS}
    return start.replace(**tuned), losses


def score(examples: Sequence[Example], crf: DenseCrf | None) -> dict[str, float]:
    """mIoU and loss with one CRF, or of the network alone."""
    capacity = crf and vertices(examples, crf.theta_alpha, crf.theta_beta)

    @jax.jit
    def run(image, logits, truth):
        if crf is not None:
            logits, _ = crf(image, logits, capacity=capacity)
        return _judge(logits, truth)

    found = [jax.tree.map(np.asarray, run(*example)) for example in examples]
    counts = sum(one["confusion"].astype(np.int64) for one in found)
    return {
        "miou": float(confusion.miou(confusion.marginals(counts))),
        "loss": float(sum(one["loss"] for one in found) / counts.sum()),
    }


if __name__ == "__main__":
    main()
