"""Our side of a comparison: a network with the oracle's weights, its logits, their error."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity.origins import ORIGINS
from segjax.models import functional, importers, resize
from segjax.models.preprocess import Preprocess


def trees(build: functional.Build, origin: str, arrays: Mapping[str, np.ndarray]) -> Any:
    """(parameters, batch statistics) of our network, every leaf from a file of that origin."""
    like = jax.eval_shape(functools.partial(functional.initial_arrays, build), 0)
    shapes = {path: leaf.shape for path, leaf in functional.by_path(*like).items()}
    found, unused = ORIGINS[origin].convert(arrays, shapes)
    placed = importers.match(found, shapes, (), where=origin, unused=unused).arrays

    def take(path, _):
        return jnp.asarray(placed[jax.tree_util.keystr(path[1:], simple=True, separator="/")])

    return jax.tree_util.tree_map_with_path(take, like)


def network(
    build: functional.Build, preprocess: Mapping[str, Any], pooled: bool = False
) -> Callable:
    """fn(trees, image uint8 [H, W, 3]) -> logits of every output, [H, W, K]; or their means, [K].

    Args:
        build: makes the network.
        preprocess: of the origin.
        pooled: whether to give the mean over the map, as a classifier does, not the upsampled map.
    """
    graph = functional.graphs(build).inference
    prepare = Preprocess(**preprocess)

    @jax.jit
    def run(trees, image):
        outputs = functional.merge(graph, *trees)(prepare(image[None]))
        if pooled:
            return [scores.values[0].mean((0, 1)) for scores in outputs]
        size = image.shape[:2]
        return [resize.apply(s.values, *s.matrices(size))[0] for s in outputs]

    return run


def error(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected number."""
    got = np.asarray(got)
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())
