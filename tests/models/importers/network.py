"""Networks of segjax for imported tensors: their shapes, and their scores with the tensors."""

import functools
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

from segjax import models
from segjax.errors import InputError
from segjax.models import functional, importers, resize
from segjax.models.preprocess import Preprocess

K = 5
BATCH, FROZEN, NONE = ({"name": name} for name in ("batch", "frozen", "none"))


def options(
    backbone: Mapping, head: Mapping, aux: Mapping | None = None, classes: int = K, **more: Any
) -> dict[str, Any]:
    """Options of `models.build`, for the functions below."""
    parts = {"backbone": backbone, "head": head, "aux": aux}
    return parts | {"num_classes": classes, "dtype": "float32"} | more


def shapes(model: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Path -> shape, for `importers.match`."""
    return dict(_shapes(json.dumps(model, sort_keys=True)))


@functools.cache
def _shapes(text: str) -> dict[str, tuple[int, ...]]:
    return {
        path: leaf.shape for path, leaf in functional.by_path(*_trees(json.loads(text))).items()
    }


def _build(model: Mapping[str, Any]):
    return lambda rngs: models.build(**model, rngs=rngs)


def _trees(model: Mapping[str, Any]):
    return jax.eval_shape(lambda: functional.initial_arrays(_build(model), 0))


def load(
    arrays: Mapping[str, np.ndarray], model: Mapping[str, Any], *skip: str, origin: str = ""
) -> importers.Match:
    """Tensors of another library, matched with segjax's network."""
    wanted = shapes(model)
    origin = origin or importers.origin_of(arrays, "f.npz")
    found, unused = importers.ORIGINS[origin].convert(arrays, wanted)
    return importers.match(found, wanted, skip, where="f.npz", unused=unused)


def refusal(arrays: Mapping[str, np.ndarray], model: Mapping[str, Any], *skip: str) -> str:
    """The line that refuses the tensors, without the advice at its end."""
    with pytest.raises(InputError) as told:
        load(arrays, model, *skip)
    text = str(told.value)
    assert "\n" not in text
    return text.removeprefix("f.npz does not fit the network: ").partition(". config.init.skip")[0]


def assert_placed(found: importers.Match, ours: str, array: np.ndarray) -> None:
    """Asserts that an array in segjax's layout is at segjax's path."""
    np.testing.assert_array_equal(found.arrays[ours], array.astype(np.float32))


def draw(layers: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Name -> random float32 array of a shape; counters, which have no shape, are integers."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=shape).astype(np.float32) if shape else np.array(7)
        for name, shape in layers.items()
    }


def scores(
    arrays: Mapping[str, np.ndarray],
    model: Mapping[str, Any],
    origin: str,
    images: np.ndarray,
    upsample: bool = True,
) -> np.ndarray:
    """Scores of images, uint8 [B, H, W, 3], normalised for the origin.

    float32 [B, H, W, K] if they are upsampled, else [B, h, w, K].
    """
    found = load(arrays, model, origin=origin).arrays
    trees = jax.tree_util.tree_map_with_path(
        lambda path, _: found[jax.tree_util.keystr(path[1:], simple=True, separator="/")],
        _trees(model),
    )
    graph = functional.graphs(_build(model)).inference
    preprocess = Preprocess(**importers.ORIGINS[origin].preprocess)

    @jax.jit
    def run(trees, images):
        found = functional.merge(graph, *trees)(preprocess(images))[0]
        if not upsample:
            return found.values
        return resize.apply(found.values, *found.matrices(images.shape[1:3]))

    return np.asarray(run(trees, images))
