"""Networks as graphs and arrays, for pure functions, checkpoints and files of weights."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

Build = Callable[[nnx.Rngs], nnx.Module]
"""Draws a network in training mode."""


@dataclasses.dataclass(frozen=True)
class Graphs:
    """The structures of one network; all take the same arrays.

    Attributes:
        training: norms see the batch, dropout is on.
        inference: norms take running averages, dropout is off.
        sampling: norms take running averages, dropout is on.
    """

    training: nnx.GraphDef
    inference: nnx.GraphDef
    sampling: nnx.GraphDef


def graphs(build: Build) -> Graphs:
    """The graphs of a network, without memory or computation."""
    model = nnx.eval_shape(lambda: build(keys(0)))
    averages = {"use_running_average": True, "raise_if_not_found": False}
    return Graphs(
        training=nnx.graphdef(model),
        inference=nnx.graphdef(nnx.view(model, deterministic=True, **averages)),
        sampling=nnx.graphdef(nnx.view(model, **averages)),
    )


def initial_arrays(build: Build, seed: int | jax.Array) -> tuple[Any, Any]:
    """Random initial parameters, and batch statistics: two nested dicts of arrays.

    Args:
        build: draws the network.
        seed: an integer; the same seed gives the same arrays.

    Raises:
        ValueError: if the network holds any other kind of variable, such as the rngs of a layer.
    """
    model = build(keys(seed))
    _, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, batch_stats = states
    return plain(params), plain(batch_stats)


class _CountedInPython(nnx.RngStream):
    """A stream of keys that counts its draws in Python.

    nnx counts in an array and asks it for its sharding at every draw. In a trace this raises an
    exception, and to write its text jax walks the whole program traced so far: most of the time of
    building a deep network.
    """

    def __init__(self, key: jax.Array, *, tag: str):
        super().__init__(key, tag=tag)
        self.drawn = 0

    def __call__(self) -> jax.Array:
        key = jax.random.fold_in(self.key[...], self.drawn)
        self.drawn += 1
        return key


def keys(seed: int | jax.Array) -> nnx.Rngs:
    """`nnx.Rngs(seed)` for building a network: the same keys, fast in a trace."""
    key = jax.random.key(seed)
    rngs = nnx.Rngs(key)
    # nnx finds streams by the names of attributes, which it does not declare.
    rngs.default = _CountedInPython(key, tag="default")  # type: ignore[attr-defined]
    return rngs


def plain(state: Any) -> Any:
    """An nnx state as nested dicts with string keys and array leaves.

    Orbax and safetensors name leaves by strings; nnx names the layers of an `nnx.List` by integers.
    """

    def rename(tree):
        if isinstance(tree, dict):
            return {str(key): rename(value) for key, value in tree.items()}
        return tree

    return rename(nnx.to_pure_dict(nnx.as_pure(state)))


def merge(graph: nnx.GraphDef, params: Any, batch_stats: Any) -> nnx.Module:
    """The module of a graph with these arrays: the inverse of splitting and `plain`."""

    def rename(tree):
        if isinstance(tree, dict):
            return {int(key) if key.isdigit() else key: rename(v) for key, v in tree.items()}
        return tree

    return nnx.merge(graph, nnx.State(rename(params)), nnx.State(rename(batch_stats)))


def by_path(*trees: Any) -> dict[str, Any]:
    """Path, such as "backbone/fc6/kernel", -> leaf of nested dicts without a path in common."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for tree in trees
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
