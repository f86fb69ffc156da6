"""Mean and variance of activations in one pass, without losing digits where the mean is large."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from segjax import arrays


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def moments(x: jax.Array, axes: Sequence[int], column: int) -> tuple[jax.Array, jax.Array]:
    """The mean and the variance, divided by n, over some axes.

    E[x^2] - E[x]^2 loses the square of |mean| / deviation in digits. Here both moments are taken
    about a mean that one column of the map gives: their difference is safe, as a part 1 / W of the
    values never has a mean further than sqrt(W - 1) deviations from that of all. Devices that share
    a batch add up one more sum per channel for it, but read their activations once.

    Args:
        x: [..., W, ...] of any float type; computed in float32 at least.
        axes: the axes that are averaged, `column` among them.
        column: the axis of W, which must not be split over devices.

    Returns:
        The mean and the variance, with axes of length 1 in place of `axes`.
    """
    middle = x.shape[column] // 2
    # Cut before it is widened: the TPU compiler would write the map in float32 for both uses.
    one = jax.lax.slice_in_dim(x, middle, middle + 1, axis=column)
    pivot = jnp.mean(arrays.wide(one), axis=axes, keepdims=True)
    apart = arrays.wide(x) - pivot
    first = jnp.mean(apart, axis=axes, keepdims=True)
    second = jnp.mean(apart * apart, axis=axes, keepdims=True)
    return pivot + first, jnp.maximum(second - first * first, 0)


@moments.defjvp
def _moments_jvp(axes, column, primals, tangents):
    """The derivatives of the formulas, about the mean: the pivot has no part in them."""
    (x,), (dx,) = primals, tangents
    mean, variance = moments(x, axes, column)
    dx = arrays.wide(dx)
    slope = jnp.mean(dx, axis=axes, keepdims=True)
    moved = 2 * jnp.mean((arrays.wide(x) - mean) * dx, axis=axes, keepdims=True)
    return (mean, variance), (slope, moved)
