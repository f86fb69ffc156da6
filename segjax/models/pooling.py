"""Max pooling over overlapping windows, with Caffe's rounding."""

import functools

import jax
import jax.numpy as jnp


def max_pool(x: jax.Array, *, window: int, stride: int, padding: int) -> jax.Array:
    """Max over window x window, rounding up as Caffe does: [B, H, W, C] -> [B, h, w, C].

    h = ceil((H + 2 padding - window) / stride) + 1, at least 1, and one less where the last window
    would begin beyond the image; windows are clipped at the border.
    One axis after the other: the maximum of `window` strided slices each, whose gradient is ten
    times faster on CPU than that of `reduce_window`. Where values tie, the first in reading order
    takes the gradient.
    """
    for axis in (2, 1):
        x = _pool_axis(x, axis, window, stride, padding)
    return x


# Its own derivative rule, for the reason given at `layers.max_pool_2x2`.
@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _pool_axis(x: jax.Array, axis: int, window: int, stride: int, padding: int) -> jax.Array:
    return functools.reduce(jnp.maximum, _slices(x, axis, window, stride, padding))


def _size(size: int, window: int, stride: int, padding: int) -> int:
    pooled = max(1, -(-(size + 2 * padding - window) // stride) + 1)
    return pooled - 1 if pooled > 1 and (pooled - 1) * stride >= size + padding else pooled


def _slices(x: jax.Array, axis: int, window: int, stride: int, padding: int) -> list[jax.Array]:
    """Element k of every window, for each k; the lowest number outside."""
    size = x.shape[axis]
    pooled = _size(size, window, stride, padding)
    reach = (pooled - 1) * stride + window
    pads = [(0, 0)] * x.ndim
    pads[axis] = (padding, max(0, reach - padding - size))
    x = jnp.pad(x, pads, constant_values=jnp.finfo(x.dtype).min)
    span = (pooled - 1) * stride + 1
    return [jax.lax.slice_in_dim(x, k, k + span, stride, axis) for k in range(window)]


def _pool_forward(x, axis, window, stride, padding):
    best, *others = _slices(x, axis, window, stride, padding)
    winner = jnp.zeros(best.shape, jnp.uint8)
    for k, other in enumerate(others, 1):
        winner = jnp.where(other > best, jnp.uint8(k), winner)
        best = jnp.maximum(best, other)  # keeps a nan
    # An empty array carries the size of the input.
    size = jnp.zeros((x.shape[axis], 0))
    return best, (jax.lax.optimization_barrier(winner), size)


def _pool_backward(axis, window, stride, padding, kept, cotangent):
    winner, size = kept[0], kept[1].shape[0]
    reach = (winner.shape[axis] - 1) * stride + window
    total = 0
    for k in range(window):
        part = jnp.where(winner == k, cotangent, 0)
        pads = [(0, 0, 0)] * winner.ndim
        pads[axis] = (k, window - 1 - k, stride - 1)
        total = total + jax.lax.pad(part, jnp.zeros((), part.dtype), pads)
    total = jax.lax.slice_in_dim(total, padding, min(reach, padding + size), 1, axis)
    fill = [(0, 0)] * winner.ndim
    fill[axis] = (0, size - total.shape[axis])
    return (jnp.pad(total, fill),)


_pool_axis.defvjp(_pool_forward, _pool_backward)
