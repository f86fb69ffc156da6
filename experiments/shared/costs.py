"""The cost of a network: its parameters, and its multiply-adds counted in the jaxpr."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from segjax.models import functional


def parameters(build: functional.Build) -> int:
    """Numbers that a network learns, those of frozen norms too; no running statistics."""
    like = jax.eval_shape(functools.partial(functional.initial_arrays, build), 0)
    leaves = functional.by_path(*like).items()
    return sum(leaf.size for path, leaf in leaves if path.split("/")[-1] not in ("mean", "var"))


def multiply_adds(build: functional.Build, size: tuple[int, int], pooled: bool = False) -> int:
    """Multiply-adds of the form for accelerators, for one image, counted in the jaxpr.

    Convolutions count, and matrix products, which 1 x 1 convolutions are there. Products in full
    precision are resizes and poolings; they do not count.

    Args:
        build: makes the network.
        size: of the image.
        pooled: whether the head sees the mean of the map, as a classifier's does, not every cell.
    """
    like = jax.eval_shape(functools.partial(functional.initial_arrays, build), 0)
    graph = functional.graphs(build).inference

    def run(trees, image):
        model = functional.merge(graph, *trees)
        if not pooled:
            return [scores.values for scores in model(image)]
        features = model.backbone(image)
        means = {name: x.mean((1, 2), keepdims=True) for name, x in features.stages.items()}
        return model.head(dataclasses.replace(features, stages=means)).values

    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    return sum(map(_cost, _equations(jax.make_jaxpr(run)(like, image).jaxpr)))


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations; where the platform chooses, those of the last branch, the default."""
    for eqn in jaxpr.eqns:
        yield eqn
        if eqn.params.get("branches_platforms"):
            assert eqn.params["branches_platforms"][-1] is None
            yield from _equations(eqn.params["branches"][-1].jaxpr)
            continue
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def _cost(eqn: Any) -> int:
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        out = eqn.params["dimension_numbers"].rhs_spec[0]
        return math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // kernel[out]
    if eqn.primitive.name == "dot_general":
        precision = jax.lax.Precision.HIGHEST
        if eqn.params["precision"] in (precision, (precision, precision)):
            return 0
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
    return 0
