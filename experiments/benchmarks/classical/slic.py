"""Superpixels beside scikit-image and, where it is built, fast-slic, on BSDS500."""

import functools
import itertools

import jax
import numpy as np
from skimage import segmentation

from experiments.benchmarks.classical import bsds500
from segjax.classical.slic import slic
from segjax.metrics import partitions

try:
    from fast_slic.avx2 import SlicAvx2
except ImportError:
    SlicAvx2 = None

REGIONS = 400


def measure(images: int, rounds: int) -> list[dict]:
    """Ours and the libraries on `images` of val: medians of times, means of scores.

    scikit-image and fast-slic are also asked for the number that makes them return as many as ours.
    """
    examples = bsds500.examples(images)
    methods = {
        "slic": _ours(),
        "slic, adaptive (SLICO)": _ours(adaptive=True),
        **{
            f"scikit-image, compactness {compactness}, {asked} asked": functools.partial(
                segmentation.slic, n_segments=asked, compactness=compactness, start_label=0
            )
            for compactness, asked in itertools.product((10, 20), (400, 450))
        },
    }
    if SlicAvx2 is not None:
        methods |= {f"fast-slic AVX2, {asked} asked": _fast(asked) for asked in (400, 410)}
    return bsds500.compare(
        examples,
        methods,
        lambda example, labels: [
            partitions.superpixel_scores(example.image, mine, example.humans) for mine in labels
        ],
        rounds=rounds,
    )


def tune(images: int) -> None:
    """Prints scores of settings on `images` of train."""
    examples = bsds500.examples(images, split="train")
    for compactness, iterations in itertools.product((9.0, 11.0, 13.0), (5, 6, 8)):
        method = _ours(compactness=compactness, iterations=iterations)
        rows = [
            partitions.superpixel_scores(e.image, np.asarray(method(e.image)), e.humans)
            for e in examples
        ]
        mean = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
        print(compactness, iterations, mean, flush=True)


def _ours(**options):
    function = jax.jit(functools.partial(slic, regions=REGIONS, **options))
    return lambda image: function(image).block_until_ready()


def _fast(asked: int):
    return lambda image: SlicAvx2(num_components=asked, compactness=10).iterate(
        np.ascontiguousarray(image)
    )
