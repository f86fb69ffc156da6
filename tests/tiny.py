"""A network of four channels on images of 32 x 48, and batches and states that find mistakes."""

import functools
import math
import os
import pathlib
import re
import zlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import cv2
import flax.struct
import jax
import ml_collections
import numpy as np
from flax import nnx

from segjax import metrics, sharding
from segjax.configs import fcn8s
from segjax.crf import Refinement
from segjax.data.spec import VOID, DatasetSpec, hls_palette
from segjax.evaluation import steps
from segjax.models import functional, norms
from segjax.models.backbones import vgg
from segjax.models.features import Features
from segjax.network import Network
from segjax.training import assembly, state

SIZE = (32, 48)
K = 5
SPEC = DatasetSpec(
    name="tiny",
    classes=tuple("abcde"),
    palette=hls_palette(K),
    table=(*((i, i) for i in range(K)), (255, VOID)),
)
# As users compile, where that matters; the tests' own settings are in conftest.py.
OPTIMISED = {"xla_backend_optimization_level": 3}
if "xla_cpu_use_fusion_emitters" in os.environ.get("XLA_FLAGS", ""):
    OPTIMISED["xla_cpu_use_fusion_emitters"] = True


def config(**changes: Any) -> ml_collections.ConfigDict:
    """FCN-8s, its smoke variant, narrower still; `changes` are "part__key" or "key"."""
    made = fcn8s.get_config("smoke")
    made.augment.size = SIZE
    made.model.backbone.width, made.model.backbone.fc_width = 4, 8
    made.loss.blocks = 3  # does not divide 32: the last block is filled
    for path, value in changes.items():
        *parents, last = path.split("__")
        functools.reduce(lambda part, name: part[name], parents, made)[last] = value
    return made


NOISY = {"model__backbone__batch_norm": True, "model__backbone__dropout": 0.5}


def short_config(**changes: Any) -> ml_collections.ConfigDict:
    """The same on `Trunk`: compiles in a quarter of the time."""
    trunk = {"name": "tests.tiny:Trunk", "batch_norm": False, "dropout": 0.0}
    return config(**{"model__backbone": trunk} | changes)


class Trunk(nnx.Module):
    """A backbone of two convolutions, with the stages that FCN-8s reads."""

    def __init__(self, *, batch_norm: bool, dropout: float, dtype=None, rngs: nnx.Rngs):
        same = {"padding": "SAME", "dtype": dtype, "rngs": rngs}
        self.stem = nnx.Conv(3, 6, (9, 9), strides=8, **same)
        if batch_norm:
            self.norm = norms.BatchNorm(6, momentum=0.9, dtype=dtype, rngs=rngs)
        self.deep = nnx.Conv(6, 6, (3, 3), strides=2, **same)
        self.dropout = nnx.Dropout(dropout)
        self.channels = {"stage3": 6, "stage4": 6, "fc7": 6}

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> Features:
        """[B, H, W, 3] -> Features with stage3, stage4 and fc7."""
        x = self.stem(x)
        stage3 = nnx.softplus(self.norm(x) if hasattr(self, "norm") else x)
        stage4 = nnx.softplus(self.deep(stage3))
        fc7 = self.dropout(stage4[:, ::2, ::2], rngs=rngs)
        stages = {"stage3": stage3, "stage4": stage4, "fc7": fc7}
        return Features(stages, {"stage3": 8, "stage4": 16, "fc7": 32})


class Shallow(vgg.VGG16):
    """VGG-16 with one convolution a stage: compiles in half the time, and else is the same."""

    __init__ = mock.patch.object(vgg, "DEPTHS", (1,) * len(vgg.DEPTHS))(vgg.VGG16.__init__)


def deep_config(**changes: Any) -> ml_collections.ConfigDict:
    """The same on `Shallow`: every kind of layer of FCN-8s, with batch norm and dropout."""
    return config(**{"model__backbone__name": "tests.tiny:Shallow"} | changes)


def assemble(made: ml_collections.ConfigDict, devices: int = 1) -> assembly.Training:
    """A training on the first `devices` devices."""
    return assembly.assemble(made, SPEC, None, jax.devices()[:devices])


def batch(seed: int, rows: int = 8, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    """Patches of colour and of label. Void is uneven: none in row 0, nothing else in the last."""
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = (rows, -(-height // 8), -(-width // 8))

    def patches(values: np.ndarray) -> np.ndarray:
        return values.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]

    label = patches(rng.integers(0, K, coarse, np.uint8))
    image = patches(rng.integers(-90, 90, (*coarse, 3))) + rng.integers(30, 220, (rows, 1, 1, 3))
    image = image + rng.integers(-20, 21, (rows, height, width, 3))
    share = np.linspace(0, 1, rows)[:, None, None]
    label = np.where(rng.random(label.shape) < share, VOID, label)
    return {
        "image": np.clip(image, 0, 255).astype(np.uint8),
        "label": label.astype(np.uint8),
        "size": np.tile(np.array(size, np.int32), (rows, 1)),
        "position": np.arange(100, 100 + rows, dtype=np.uint32),
        "position_high": np.zeros(rows, np.uint32),
        "index": np.arange(rows, dtype=np.uint32),
        "weight": np.ones(rows, np.float32),
    }


def awake(params: Any) -> Any:
    """Parameters as if trained for a while: what starts at zero or one is drawn.

    With zero score kernels the first step's gradient of the whole backbone would be zero. Norm
    biases lie around 1, so that few activations are near the kink of a ReLU: one that rounding
    takes across it changes a gradient by per cents.
    """

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("kernel") and "score" not in name:
            return leaf
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        drawn = rng.normal(0, 0.3 if "score" in name else 0.2, leaf.shape).astype(leaf.dtype)
        return leaf + drawn + ("norm" in name and name.endswith("bias"))

    return jax.tree_util.tree_map_with_path(draw, params)


def drawn(shapes: Any, seed: int = 0) -> Any:
    """Arrays of these shapes: kernels by He et al., scales and variances of 1, the rest 0.

    By numpy, which has no program to compile for every shape.
    """

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not name.endswith("kernel"):
            return np.full(leaf.shape, name.endswith(("scale", "var")), leaf.dtype)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        return rng.normal(0, (2 / math.prod(leaf.shape[:-1])) ** 0.5, leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def awake_state(training: assembly.Training) -> state.TrainState:
    """The state before the first step, but `drawn` and `awake`, on the training's mesh."""
    shapes = training.state_shapes()
    ts = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    weights = {"params": awake(drawn(shapes.params)), "batch_stats": drawn(shapes.batch_stats)}
    ts = ts.replace(**weights, ema=weights if shapes.ema else {})
    # Each leaf a copy of its own: a step is given the state's memory.
    return jax.tree.map(
        lambda leaf: jax.device_put(leaf.copy(), sharding.replicated(training.mesh)), ts
    )


def network(training: assembly.Training, ts: state.TrainState | None = None) -> Network:
    """The network of a training with the weights of a state, which is `awake_state` by default."""
    ts = awake_state(training) if ts is None else ts
    return Network(ts.params, ts.batch_stats, training.model)


def look(
    training: assembly.Training, *, samples: int = 0, crf: Refinement | None = None
) -> Callable:
    """The evaluation step of a training's networks, jitted: (network, batch) -> results."""
    judge = steps.Judge(
        metrics.build(training.model.spec, class_weights=training.loss.class_weights)
    )
    one = steps.Look(judge, training.config.loss.blocks, samples, crf, training.mesh)
    return one.jitted(training.model, split=True)


@flax.struct.dataclass
class Module:
    """A module as graphs and arrays: awake parameters and batch statistics."""

    graphs: functional.Graphs = flax.struct.field(pytree_node=False)
    params: Any
    batch_stats: Any


def module(build: functional.Build, seed: int = 0) -> Module:
    """A module with `drawn` arrays."""
    params, batch_stats = drawn(jax.eval_shape(lambda: functional.initial_arrays(build, 0)), seed)
    return Module(functional.graphs(build), awake(params), batch_stats)


def count(tree: Any) -> int:
    """Numbers in all leaves, arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def by_name(tree: Any) -> dict[str, np.ndarray]:
    """Path -> array of every leaf."""
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


def assert_close(got: Any, expected: Any, bound: float = 1e-5) -> None:
    """max|a - b| <= bound x max|b| for every tensor; where b is zero, a is zero."""
    got, expected = by_name(got), by_name(expected)
    assert got.keys() == expected.keys()
    errors = {
        name: (np.abs(got[name].astype(float) - b).max(initial=0), np.abs(b).max(initial=0))
        for name, b in ((name, b.astype(float)) for name, b in expected.items())
    }
    far = {name: (error, size) for name, (error, size) in errors.items() if error > bound * size}
    assert not far, f"(max|a - b|, max|b|) of {len(far)} tensors: {far}"


def assert_same_bits(got: Any, expected: Any) -> None:
    """Every leaf equal, nan to nan."""
    got, expected = by_name(got), by_name(expected)
    assert got.keys() == expected.keys()
    for name, b in expected.items():
        np.testing.assert_array_equal(got[name], b, err_msg=name)


def products_below_full_precision(fn: Callable, *arguments: Any) -> list[str]:
    """The matrix products and convolutions that an accelerator may round below float32."""
    text = jax.jit(fn).lower(*arguments).as_text()
    products = [line for line in text.splitlines() if re.search(r"dot_general|convolution", line)]
    assert products, "no product found: the pattern is out of date"
    return [line for line in products if line.count("HIGHEST") != 2]


def write_regions(
    root: pathlib.Path, name: str, masks: dict[int, np.ndarray], split: str = "val"
) -> None:
    """Writes a grey image and annotator k's mask for every k, as BSDS500 lies on disk."""
    height, width = next(iter(masks.values())).shape
    for part in ("images", "labels"):
        (root / part / split).mkdir(parents=True, exist_ok=True)
    image = np.full((height, width, 3), 90, np.uint8)
    cv2.imwrite(str(root / "images" / split / f"{name}.png"), image)
    for k, mask in masks.items():
        cv2.imwrite(str(root / "labels" / split / f"{name}_{k}.png"), mask)
