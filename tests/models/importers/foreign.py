"""A narrow VGG-16 as other libraries compute it, in float64, and segjax's with its weights."""

import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from flax import nnx

from segjax import models
from segjax.models import functional, importers
from tests import tiny

K = 5
WIDTHS = (4, 8, 16, 32, 32)  # of the stages
FC = 8
DEPTHS = (2, 2, 3, 3, 3)
CONVOLUTIONS = [  # (stage, block, channels in, channels out)
    (stage, block, (3, *WIDTHS)[stage] if block == 0 else WIDTHS[stage], WIDTHS[stage])
    for stage, depth in enumerate(DEPTHS)
    for block in range(depth)
]
DENSE = ((49 * WIDTHS[-1], FC), (FC, FC), (FC, K))  # fc6, fc7, fc8

CHW, HWC = "chw", "hwc"


def image() -> np.ndarray:
    """A random image after preprocessing: float32 [224, 224, 3]."""
    return np.random.default_rng(7).normal(0, 60, (224, 224, 3)).astype(np.float32)


def normals(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    return rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)


def convolve(x: np.ndarray, kernel: np.ndarray, order: str) -> np.ndarray:
    """3 x 3 convolution with a border of zeros.

    [C, H, W] with [K, C, 3, 3], or [H, W, C] with [3, 3, C, K].
    """
    if order == CHW:
        wide = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        height, width = x.shape[1:]
        taps = [
            np.einsum("kc,chw->khw", kernel[:, :, i, j], wide[:, i : i + height, j : j + width])
            for i, j in np.ndindex(3, 3)
        ]
    else:
        wide = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        height, width = x.shape[:2]
        taps = [wide[i : i + height, j : j + width] @ kernel[i, j] for i, j in np.ndindex(3, 3)]
    return sum(taps)


def halve(x: np.ndarray, order: str) -> np.ndarray:
    """2 x 2 max pooling of even sides."""
    if order == CHW:
        channels, height, width = x.shape
        return x.reshape(channels, height // 2, 2, width // 2, 2).max((2, 4))
    height, width, channels = x.shape
    return x.reshape(height // 2, 2, width // 2, 2, channels).max((1, 3))


def classify(
    order: str,
    convolution: Callable[[int, np.ndarray], np.ndarray],
    dense: Callable[[int, np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """fc7 [FC] and scores [K] of `image`, with maps flattened in `order`: float64.

    `convolution` and `dense` get the number of the layer and do not apply the ReLU.
    """
    x = image().astype(np.float64)
    x = x.transpose(2, 0, 1) if order == CHW else x
    for number, (_stage, block, *_) in enumerate(CONVOLUTIONS):
        if block == 0 and number:
            x = halve(x, order)
        x = np.maximum(convolution(number, x), 0)
    x = halve(x, order).reshape(-1)
    for number in (0, 1):
        x = np.maximum(dense(number, x), 0)
    return x, dense(2, x)


def build(rngs: nnx.Rngs, *, head: str = "classifier", classes: int = K, **options):
    """segjax's network of the same widths; `options` are the backbone's."""
    backbone = {"name": "vgg16", "batch_norm": False, "border": "same", "dropout": 0.5}
    return models.build(
        backbone=backbone | {"width": WIDTHS[0], "fc_width": FC} | options,
        head={"name": head},
        aux=None,
        num_classes=classes,
        dtype="float32",
        rngs=rngs,
    )


@functools.cache
def shapes(**options) -> dict[str, tuple[int, ...]]:
    """Path -> shape of segjax's network, for `importers.match`."""
    trees = jax.eval_shape(
        lambda: functional.initial_arrays(functools.partial(build, **options), 0),
    )
    return {path: leaf.shape for path, leaf in functional.by_path(*trees).items()}


def load(
    arrays: Mapping[str, np.ndarray], origin: str = "", skip: tuple[str, ...] = (), **options
) -> importers.Match:
    """Tensors of another library, matched with segjax's network."""
    wanted = shapes(**options)
    origin = origin or importers.origin_of(arrays, "f.npz")
    found, unused = importers.ORIGINS[origin].convert(arrays, wanted)
    return importers.match(found, wanted, skip, where="f.npz", unused=unused)


def ours(found: importers.Match, **options) -> tuple[np.ndarray, np.ndarray]:
    """fc7 and scores of `image` by segjax, at the cell whose 7 x 7 window is the whole map."""
    net = tiny.module(functools.partial(build, **options))
    params, batch_stats = (
        jax.tree_util.tree_map_with_path(
            lambda path, _: found.arrays[jax.tree_util.keystr(path, simple=True, separator="/")],
            tree,
        )
        for tree in (net.params, net.batch_stats)
    )

    @jax.jit
    def run(params, batch_stats, x):
        model = functional.merge(net.graphs.inference, params, batch_stats)
        features = model.backbone(x)
        return features.stages["fc7"], model.head(features).values

    maps = run(params, batch_stats, image()[None])
    assert maps[0].shape[1:3] == maps[1].shape[1:3] == (7, 7)
    return tuple(np.asarray(x)[0, 3, 3] for x in maps)


def assert_equal(got: tuple[np.ndarray, np.ndarray], expected: tuple) -> None:
    """Asserts that fc7 and scores agree up to float32 rounding and are not trivial."""
    for a, b in zip(got, expected, strict=True):
        assert np.abs(b).max() > 0.1
        assert len(np.unique(b)) > 2
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
