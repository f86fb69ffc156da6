"""Keeping expensive intermediate arrays out of XLA's fusions on a CPU."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Arrays = jax.Array | tuple[jax.Array, ...]


def apart(function: Callable[[], Arrays], anchor: jax.Array) -> Arrays:
    """function(), computed once and stored before anything reads it.

    On a CPU XLA fuses a producer into all its consumers and computes it again for every element
    that they read: a filter's second pass would repeat the first for each of its taps.
    `jax.lax.optimization_barrier` is dropped there; the result of a loop is not, as long as its
    number of trips is not known when it is compiled.

    Args:
        function: has no argument and returns an array, or a tuple of them.
        anchor: a float scalar that comes from the data.
    """

    def in_loop() -> Arrays:
        shapes = jax.eval_shape(function)
        # A second trip would only repeat the first.
        trips = jnp.where(jnp.isnan(anchor), 2, 1)
        empty = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        start = (jnp.zeros((), trips.dtype), empty)
        return jax.lax.while_loop(
            lambda carry: carry[0] < trips, lambda carry: (carry[0] + 1, function()), start
        )[1]

    return jax.lax.platform_dependent(cpu=in_loop, default=function)
