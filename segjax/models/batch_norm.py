"""Normalisation by a batch's own statistics as a function, with a derivative that moves little.

What compilers make of the derivatives of the formulas, one by one, reads a map once for each sum,
and keeps or writes again what the activation let through. Here both sums of the backward pass are
taken at one read of the map and of its cotangent, the gradient at another.
"""

import functools

import jax
import jax.numpy as jnp

from segjax import arrays
from segjax.models.moments import moments


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalised(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    relu: bool,
    dtype: jax.typing.DTypeLike,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A batch's map normalised by its own statistics (Ioffe and Szegedy 2015, algorithm 1).

    The type of the computation is that of the result alone: statistics are in float32 at least, as
    a mean of bfloat16 has two digits.

    Args:
        x: [B, H, W, C].
        scale, bias: [C].
        epsilon: added to the variance.
        relu: whether a ReLU follows.
        dtype: type of the result.

    Returns:
        [B, H, W, C]; and the mean and the variance, divided by n, [C] each, without derivatives.
    """
    mean, var = (s.ravel() for s in moments(x, tuple(range(x.ndim - 1)), x.ndim - 2))
    y = affine(x, mean, jax.lax.rsqrt(var + epsilon) * scale, bias)
    return (jnp.maximum(y, 0) if relu else y).astype(dtype), mean, var


def affine(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    """(x - mean) factor + bias, in float32 at least."""
    return (arrays.wide(x) - mean) * factor + bias


def _forward(x, scale, bias, epsilon, relu, dtype):
    y, mean, var = normalised(x, scale, bias, epsilon, relu, dtype)
    return (y, mean, var), (x, mean, var, scale, bias)


def _backward(epsilon, relu, dtype, kept, cotangents):
    del dtype
    x, mean, var, scale, bias = kept
    inverse = jax.lax.rsqrt(var + epsilon)
    factor = inverse * scale

    def passed(x: jax.Array) -> jax.Array:
        """The part of the cotangent that reaches the normalisation."""
        cotangent = arrays.wide(cotangents[0])
        if not relu:
            return cotangent
        # A factor of 0 or 1: XLA:GPU would write down what a comparison gives, for several uses.
        return cotangent * jnp.clip(jnp.sign(affine(x, mean, factor, bias)), 0, 1)

    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    x = arrays.read_again(x)
    total = jnp.sum(passed(x), axis=axes)
    x = arrays.read_again(x)
    along = jnp.sum(passed(x) * (arrays.wide(x) - mean), axis=axes)
    x = arrays.read_again(x)
    slope = along * inverse * inverse / count
    gradient = factor * (passed(x) - total / count - (arrays.wide(x) - mean) * slope)
    return gradient.astype(x.dtype), along * inverse, total


normalised.defvjp(_forward, _backward)
