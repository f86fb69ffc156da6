"""FCN against fixtures of pytorch-fcn's logits: see experiments/parity/fcn.py."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import models
from segjax.models import functional, importers, resize
from segjax.models.preprocess import Preprocess
from tests import tiny

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures" / "fcn"
TOLERANCE = 1e-4  # of the largest logit
SIZES = ((64, 64), (57, 43), (97, 130))
K = 5
HEADS = {
    "fcn32s": {"name": "fcn32s"},
    "fcn16s": {"name": "fcn16s"},
    "fcn8s": {"name": "fcn8s"},
    "fcn8s_at_once": {"name": "fcn8s", "at_once": True},
}
ORIGIN = importers.ORIGINS["caffe_fcn"]


def build(variant: str, rngs: nnx.Rngs, *, width: int = 4, fc_width: int = 24, classes: int = K):
    """The network as released, with a border of 100 and without batch norm."""
    backbone = {"name": "vgg16", "batch_norm": False, "border": "caffe", "dropout": 0.5}
    return models.build(
        backbone=backbone | {"width": width, "fc_width": fc_width},
        head=HEADS[variant],
        aux=None,
        num_classes=classes,
        dtype="float32",
        rngs=rngs,
    )


def load(variant: str) -> tuple[dict, dict, dict]:
    """The fixture: tensors by Caffe's names, and images and the oracle's logits by size."""
    arrays = {}
    for name in ("shared", variant):
        with np.load(FIXTURES / f"{name}.npz") as file:
            arrays |= file
    images, logits = (
        {size: arrays.pop(f"{kind}_{size[0]}x{size[1]}") for size in SIZES}
        for kind in ("image", "logits")
    )
    return arrays, images, logits


def as_params(variant: str, arrays: dict[str, np.ndarray], like) -> dict:
    """The tree of `like` with every leaf from `arrays`."""
    wanted = functional.by_path(like)
    found, unused = ORIGIN.convert(arrays, wanted)
    shapes = {path: leaf.shape for path, leaf in wanted.items()}
    matched = importers.match(found, shapes, (), where=variant, unused=unused)

    def take(path, _):
        return matched.arrays[jax.tree_util.keystr(path, simple=True, separator="/")]

    return jax.tree_util.tree_map_with_path(take, like)


@functools.cache
def network(variant: str):
    """A fixture, and fn(params, image uint8 [H, W, 3]) -> Scores and logits [H, W, K]."""
    arrays, images, logits = load(variant)
    graph = functional.graphs(functools.partial(build, variant)).inference
    preprocess = Preprocess(**ORIGIN.preprocess)

    @jax.jit
    def run(params, image):
        scores = functional.merge(graph, params, {})(preprocess(image[None]))[0]
        return scores, resize.apply(scores.values, *scores.matrices(image.shape[:2]))[0]

    like, _ = jax.eval_shape(
        functools.partial(functional.initial_arrays, functools.partial(build, variant)), 0
    )
    return arrays, images, logits, run, like


def error(logits: jax.Array, expected: np.ndarray) -> float:
    """Largest difference at every third pixel, divided by the largest expected logit."""
    got = np.asarray(logits)[::3, ::3]
    assert got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("variant", HEADS)
def test_logits_equal_an_independent_implementation_s(variant):
    arrays, images, expected, run, like = network(variant)
    params = as_params(variant, arrays, like)
    for size in SIZES:
        scores, logits = run(params, images[size])
        assert logits.shape == (*size, K)
        assert error(logits, expected[size]) <= TOLERANCE, size
        # A crop that is one pixel off is seen.
        off = dataclasses.replace(scores.resize, offset=scores.resize.offset + 1)
        moved = resize.apply(scores.values, *scores.replace(resize=off).matrices(size))[0]
        assert error(moved, expected[size]) > 10 * TOLERANCE, size


@pytest.mark.parametrize("variant", HEADS)
def test_the_logits_of_the_fixture_depend_on_every_score_layer(variant):
    arrays, images, expected, run, like = network(variant)
    size = SIZES[0]
    layers = {name for name in arrays if name.startswith("score")}
    assert len(layers) == 2 * {"fcn32s": 1, "fcn16s": 2}.get(variant, 3)
    for layer in layers:
        params = as_params(variant, arrays | {layer: np.zeros_like(arrays[layer])}, like)
        assert error(run(params, images[size])[1], expected[size]) > 10 * TOLERANCE, layer


@pytest.mark.parametrize("classes", [21, 11, 33, 60])
@pytest.mark.parametrize(
    ("variant", "a_class"),
    [("fcn32s", 4097), ("fcn16s", 4610), ("fcn8s", 4867), ("fcn8s_at_once", 4867)],
)
def test_every_variant_has_the_parameters_of_the_paper(variant, a_class, classes):
    full = functools.partial(build, variant, width=64, fc_width=4096, classes=classes)
    params, _ = jax.eval_shape(functools.partial(functional.initial_arrays, full), 0)
    assert tiny.count(params) == 134_260_544 + a_class * classes


@pytest.mark.parametrize(
    ("variant", "cells", "stride", "upsampled", "crop"),
    [
        ("fcn32s", 16, 32, 544, 19),
        ("fcn16s", 34, 16, 560, 27),
        ("fcn8s", 70, 8, 568, 31),
        ("fcn8s_at_once", 70, 8, 568, 31),
    ],
)
def test_the_worked_sizes_of_the_release_hold_at_500(variant, cells, stride, upsampled, crop):
    def run(x):
        return build(variant, functional.keys(0))(x, rngs=nnx.Rngs(0))[0]

    scores = jax.eval_shape(run, jnp.zeros((1, 500, 500, 3)))
    assert scores.values.shape == (1, cells, cells, K)
    assert scores.resize == resize.Resize("transposed", stride, offset=crop)
    whole = resize.Resize("transposed", stride).matrix(cells, 600)
    assert whole.any(axis=1).sum() == upsampled  # rows before the crop
    np.testing.assert_array_equal(scores.matrices((500, 500))[0], whole[crop : crop + 500])
