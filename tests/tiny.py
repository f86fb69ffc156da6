"""A network of four channels on images of 32 x 48, and a batch that finds mistakes in steps."""

import functools
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import nnx

from configs import fcn8s
from segjax import experiment, state
from segjax.data.spec import VOID, DatasetSpec, hls_palette

SIZE = (32, 48)
K = 5
SPEC = DatasetSpec(
    name="tiny",
    classes=tuple("abcde"),
    palette=hls_palette(K),
    table=tuple((i, i) for i in range(K)) + ((255, VOID),),
)


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


def assemble(made: ml_collections.ConfigDict, devices: int = 1) -> experiment.Experiment:
    """The parts of a run on the first `devices` devices."""
    return experiment.assemble(made, SPEC, None, jax.devices()[:devices])


def batch(seed: int, rows: int = 8, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    """A batch whose void is uneven: row 0 has none, the last row nothing else, as numpy arrays."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, K, (rows, *size), np.uint8)
    # Coarse patches, so that there is something to learn and nearest and bilinear differ.
    label = np.repeat(np.repeat(label[:, ::8, ::8], 8, axis=1), 8, axis=2)
    label = label[:, : size[0], : size[1]]
    image = rng.integers(0, 256, (rows, *size, 3), np.uint8) // 2 + (label * 25)[..., None]
    share = np.linspace(0, 1, rows)[:, None, None]
    label = np.where(rng.random(label.shape) < share, VOID, label).astype(np.uint8)
    return {
        "image": image.astype(np.uint8),
        "label": label,
        "size": np.tile(np.array(size, np.int32), (rows, 1)),
        "position": np.arange(100, 100 + rows, dtype=np.uint32),
        "index": np.arange(rows, dtype=np.uint32),
        "weight": np.ones(rows, np.float32),
    }


def awake(params: Any) -> Any:
    """Parameters with the zero-initialised score kernels drawn, so that gradients reach the trunk.

    With zeros there, the first step's gradient of the whole backbone is zero.
    """

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if "score" not in name or not name.endswith("kernel"):
            return leaf
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        return jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, params)


def awake_state(parts: experiment.Experiment) -> state.TrainState:
    """A fresh state with `awake` parameters, on the mesh of `parts`."""
    fresh = parts.initial_state()
    params = jax.device_put(awake(jax.device_get(fresh.params)), state.replicated(parts.mesh))
    return fresh.replace(params=params)


def network(
    build: Callable[[nnx.Rngs], nnx.Module], seed: int = 0
) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """(training graph, evaluation graph, awake parameters, batch statistics) of a model."""
    params, batch_stats = state.initial_arrays(build, seed)
    return *state.graphs(build), awake(params), batch_stats


def by_name(tree: Any) -> dict[str, np.ndarray]:
    """Path -> array of every leaf."""
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }
