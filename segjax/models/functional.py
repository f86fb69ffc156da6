"""A network as its graphs and its arrays: what pure functions of arrays take."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


def graphs(build: Callable[[nnx.Rngs], nnx.Module]) -> tuple[Any, Any]:
    """The model's training graph and its evaluation graph; both take the same arrays."""
    model = nnx.eval_shape(lambda: build(keys(0)))  # no memory, no compute
    frozen = nnx.view(model, use_running_average=True, deterministic=True, raise_if_not_found=False)
    return nnx.graphdef(model), nnx.graphdef(frozen)


def sampling_graph(build: Callable[[nnx.Rngs], nnx.Module]) -> Any:
    """The model's graph for passes that dropout stays on in; norms take running averages."""
    model = nnx.eval_shape(lambda: build(keys(0)))
    sampling = nnx.view(model, use_running_average=True, raise_if_not_found=False)
    return nnx.graphdef(sampling)


def initial_arrays(build: Callable[[nnx.Rngs], nnx.Module], seed: jax.Array) -> tuple[Any, Any]:
    """Freshly drawn parameters and batch statistics, as nested dicts of arrays."""
    # Exactly these two kinds: any other variable, such as a layer's own rngs, raises.
    model = build(keys(seed))
    _, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return plain(params), plain(batch_stats)


class _Counted(nnx.RngStream):
    """The keys of nnx, but counted in Python.

    nnx counts in an array, and asks it for its sharding at every draw. In a trace the answer is an
    exception whose text jax makes by going through all that was traced before: most of the time
    that it takes to build a deep network.
    """

    def __init__(self, key: jax.Array, *, tag: str):
        super().__init__(key, tag=tag)
        self.drawn = 0

    def __call__(self) -> jax.Array:
        key = jax.random.fold_in(self.key[...], self.drawn)
        self.drawn += 1
        return key


def keys(seed: jax.Array) -> nnx.Rngs:
    """`nnx.Rngs(seed)` for building a network: the same keys, fast in a trace."""
    key = jax.random.key(seed)
    rngs = nnx.Rngs(key)
    rngs.default = _Counted(key, tag="default")
    return rngs


def plain(state: Any) -> Any:
    """An nnx state as nested dicts with string keys and array leaves.

    Orbax and safetensors name leaves by strings; layers in an `nnx.List` have whole numbers.
    """

    def rename(tree):
        if isinstance(tree, dict):
            return {str(key): rename(value) for key, value in tree.items()}
        return tree

    return rename(nnx.to_pure_dict(nnx.as_pure(state)))


def merge(graph: Any, params: Any, batch_stats: Any) -> nnx.Module:
    """The inverse of splitting with `plain`: a module whose variables hold these arrays."""

    def rename(tree):
        if isinstance(tree, dict):
            return {int(key) if key.isdigit() else key: rename(v) for key, v in tree.items()}
        return tree

    return nnx.merge(graph, nnx.State(rename(params)), nnx.State(rename(batch_stats)))
