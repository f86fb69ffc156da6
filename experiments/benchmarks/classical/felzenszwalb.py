"""Graph-based segmentation beside scikit-image's, on BSDS500."""

import functools
import itertools

import jax
import numpy as np
from skimage import segmentation

from experiments.benchmarks.classical import common
from segjax.classical.felzenszwalb import felzenszwalb
from segjax.metrics import partitions as scores

# What `tune(200)` chose: the whole of train.
TUNED = {"scale": 350.0, "sigma": 1.4, "min_size": 1000}
USUAL = {"scale": 500.0, "sigma": 0.8, "min_size": 100}
LEVELS = 256


def measure(images: int, rounds: int) -> list[dict]:
    """Both forms and scikit-image on `images` of val: medians of times, means of scores.

    `vi_to_library` is the variation of information, in bits, from scikit-image's result.
    """
    examples = common.val_images(images)
    return [row for settings in (TUNED, USUAL) for row in _compare(examples, settings, rounds)]


def _compare(examples: list[common.Example], settings: dict, rounds: int) -> list[dict]:
    methods = {
        "felzenszwalb exact": _ours(form="exact", **settings),
        f"felzenszwalb parallel, {LEVELS} levels": _ours(
            form="parallel", levels=LEVELS, **settings
        ),
        "scikit-image felzenszwalb": functools.partial(segmentation.felzenszwalb, **settings),
    }

    def score(example: common.Example, labels: list[np.ndarray]) -> list[dict]:
        return [
            {
                **scores.partition_scores(mine, example.humans),
                "vi_to_library": _information(mine, labels[-1]),
            }
            for mine in labels
        ]

    rows = common.compare(examples, methods, score, rounds=rounds)
    return [{"method": row.pop("method"), "settings": settings, **row} for row in rows]


def tune(images: int) -> dict:
    """Prints scores of settings on `images` of train, a coarse grid and a finer one within it.

    Returns:
        Those of the best covering.
    """
    examples = common.val_images(images, split="train")
    coarse = itertools.product((1.2, 1.6, 2.0), (150.0, 250.0, 350.0, 500.0), (600, 1000, 1500))
    fine = itertools.product((1.4, 1.6, 1.8), (300.0, 350.0, 400.0), (800, 1000, 1200))
    best = {}
    for sigma, scale, min_size in (*coarse, *fine):
        settings = {"scale": scale, "sigma": sigma, "min_size": min_size}
        method = _ours(form="exact", **settings)
        rows = [
            scores.partition_scores(np.asarray(method(example.image)), example.humans)
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
    (counts,) = scores.overlaps(a, [b])
    return scores.variation_of_information(counts)
