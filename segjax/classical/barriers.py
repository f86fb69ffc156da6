"""Barriers that keep expensive intermediate arrays out of XLA's fusions on a CPU."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Arrays = TypeVar("Arrays")
"""An array, or a container of arrays that jax knows."""


def materialize(function: Callable[[], Arrays], anchor: jax.Array) -> Arrays:
    """The result of `function()`, computed once and stored before it is read.

    On a CPU XLA fuses a producer into all its consumers and recomputes it for every element that
    they read: a filter's second pass would repeat the first for each of its taps. XLA drops
    `jax.lax.optimization_barrier` there, but it keeps the result of a loop whose number of trips is
    unknown at compile time.

    Args:
        function: takes no argument and returns arrays.
        anchor: a float scalar computed from the data; it makes the number of trips unknown.
    """

    def in_loop() -> Arrays:
        shapes = jax.eval_shape(function)
        # A second trip, for nan, would only repeat the first.
        trips = jnp.where(jnp.isnan(anchor), 2, 1)
        empty = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        start = (jnp.zeros((), trips.dtype), empty)
        return jax.lax.while_loop(
            lambda carry: carry[0] < trips, lambda carry: (carry[0] + 1, function()), start
        )[1]

    return jax.lax.platform_dependent(cpu=in_loop, default=function)
