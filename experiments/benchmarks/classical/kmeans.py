"""K-means beside scikit-learn's, on BSDS500."""

import functools
import itertools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import cluster

from experiments.benchmarks.classical import bsds500
from experiments.shared import timing
from segjax.classical import descriptors, kmeans
from segjax.metrics import partitions

CLUSTERS = 8


def measure(images: int, rounds: int) -> list[dict]:
    """Ours and scikit-learn's Lloyd on `images` of val, from the same start and from k-means++.

    `inertia_ratio` compares ours with scikit-learn's, both in float32. `same_labels`, of runs from
    the same start, compares each with scikit-learn in float64: in float32 roundings decide ties,
    and one pixel may lead to other iterations.
    """
    examples = bsds500.examples(images)
    return [
        row
        for kind, same_start in itertools.product(("rgb", "lab"), (True, False))
        for row in _compare(examples, kind, same_start, rounds)
    ]


def _compare(examples, kind: str, same_start: bool, rounds: int) -> list[dict]:
    times, ratios = [], []
    found = {"kmeans": [], "scikit-learn KMeans, lloyd": []}
    agree = {method: [] for method in found}
    planes = jax.jit(functools.partial(descriptors.describe_pixels, kind=kind))
    for number, example in enumerate(examples):
        points = np.asarray(planes(example.image)).reshape(3, -1).T.copy()
        start = points[np.random.default_rng(number).choice(len(points), CLUSTERS, replace=False)]
        options = {"start": jnp.asarray(start)} if same_start else {"seed": number}
        device = jnp.asarray(points)
        ours = functools.partial(_ours, device, options)
        init = start if same_start else "k-means++"
        learner = cluster.KMeans(CLUSTERS, init=init, n_init=1, random_state=number)
        theirs = functools.partial(learner.fit, points)
        times.append(timing.median_ms(ours, theirs, rounds=rounds))
        mine, other = ours(), theirs()
        ratios.append(float(mine.inertia) / other.inertia_)
        outcome = dict(zip(found, (mine.assignment, other.labels_), strict=True))
        exact = learner.fit(points.astype(np.float64)).labels_
        for method, flat in outcome.items():
            agree[method].append(float(np.mean(flat == exact)))
            labels = np.asarray(flat, np.int32).reshape(example.image.shape[:2])
            found[method].append(partitions.partition_scores(labels, example.humans))
    columns = zip(*times, strict=True)
    return [
        {
            "method": method,
            "features": kind,
            "start": "the same" if same_start else "k-means++",
            "ms": statistics.median(column),
            "same_labels": f"{np.mean(agree[method]):.5f}" if same_start else "",
            "inertia_ratio": f"median {np.median(ratios):.5f}, mean {np.mean(ratios):.5f}",
            **{key: float(np.mean([row[key] for row in rows])) for key in rows[0]},
            "images": len(examples),
        }
        for (method, rows), column in zip(found.items(), columns, strict=True)
    ]


def tune(images: int) -> None:
    """Prints the scores of features on `images` of train."""
    examples = bsds500.examples(images, split="train")
    kinds = [("rgb", 0.0), ("lab", 0.0), ("texture", 0.0)]
    for kind, position in kinds + [("lab_xy", weight) for weight in (25.0, 50.0, 100.0)]:
        method = functools.partial(
            kmeans.kmeans, clusters=CLUSTERS, features=kind, position=position
        )
        rows = [
            partitions.partition_scores(np.asarray(method(e.image)), e.humans) for e in examples
        ]
        mean = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
        print(kind, position, mean, flush=True)


def _ours(points: jax.Array, options: dict):
    return jax.block_until_ready(kmeans.fit(points, clusters=CLUSTERS, **options))
