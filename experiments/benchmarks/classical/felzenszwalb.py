"""Graph-based segmentation beside scikit-image's, on BSDS500."""

import functools
import itertools

import jax
import numpy as np
from skimage import segmentation

from experiments.benchmarks.classical import bsds500
from segjax.classical.felzenszwalb import felzenszwalb
from segjax.metrics import partitions

# What `tune(200)` chose: the whole of train.
TUNED = {"scale": 350.0, "sigma": 1.4, "min_size": 1000}
USUAL = {"scale": 500.0, "sigma": 0.8, "min_size": 100}
LEVELS = 256


def measure(images: int, rounds: int) -> list[dict]:
    """Both forms and scikit-image on `images` of val: medians of times, means of scores.

    `vi_to_library` is the variation of information, in bits, from scikit-image's result.
    """
    examples = bsds500.examples(images)
    return [row for settings in (TUNED, USUAL) for row in _compare(examples, settings, rounds)]


def _compare(examples: list[bsds500.Example], settings: dict, rounds: int) -> list[dict]:
    methods = {
        "felzenszwalb exact": _ours(form="exact", **settings),
        f"felzenszwalb parallel, {LEVELS} levels": _ours(
            form="parallel", levels=LEVELS, **settings
        ),
        "scikit-image felzenszwalb": functools.partial(segmentation.felzenszwalb, **settings),
    }

    def score(example: bsds500.Example, labels: list[np.ndarray]) -> list[dict]:
        return [
            {
                **partitions.partition_scores(mine, example.humans),
                "vi_to_library": _information(mine, labels[-1]),
            }
            for mine in labels
        ]

    rows = bsds500.compare(examples, methods, score, rounds=rounds)
    return [{"method": row.pop("method"), "settings": settings, **row} for row in rows]


def tune(images: int) -> dict:
    """Prints scores of settings on `images` of train, a coarse grid and a finer one within it.

    Returns:
        The settings of the best covering.
    """
    examples = bsds500.examples(images, split="train")
    coarse = itertools.product((1.2, 1.6, 2.0), (150.0, 250.0, 350.0, 500.0), (600, 1000, 1500))
    fine = itertools.product((1.4, 1.6, 1.8), (300.0, 350.0, 400.0), (800, 1000, 1200))
    best = {}
    for sigma, scale, min_size in (*coarse, *fine):
        settings = {"scale": scale, "sigma": sigma, "min_size": min_size}
        method = _ours(form="exact", **settings)
        rows = [
            partitions.partition_scores(np.asarray(method(example.image)), example.humans)
            for example in examples
        ]
        mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        print(settings, mean, flush=True)
        if not best or mean["covering"] > best["covering"]:
            best = {**mean, "settings": settings}
    return best["settings"]


def _ours(**options):
    function = jax.jit(functools.partial(felzenszwalb, **options))
    return lambda image: function(image).block_until_ready()


def _information(a: np.ndarray, b: np.ndarray) -> float:
    (counts,) = partitions.overlaps(a, [b])
    return partitions.variation_of_information(counts)
