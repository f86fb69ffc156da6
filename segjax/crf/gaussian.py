"""The Gaussian kernel over positions without a lattice: a sum along each axis in turn."""

import math

import flax.struct
import jax
import jax.numpy as jnp

REACH = 5
"""Standard deviations at which the kernel is cut off, at 4e-6 of its height."""


@flax.struct.dataclass
class Gaussian:
    """exp(-|p_i - p_j|^2 / (2 theta^2)) between the pixels of an image.

    Attributes:
        mask: float [H, W], 1 for pixels of the image, 0 for others.
        taps: float [2 r + 1], the kernel along one axis, with a reach of r pixels.
    """

    mask: jax.Array
    taps: jax.Array


def build(mask: jax.Array, theta: float | jax.Array, reach: int | None = None) -> Gaussian:
    """The kernel of an image.

    Args:
        mask: float [H, W], see `Gaussian`.
        theta: standard deviation in pixels; the kernel can be differentiated by it.
        reach: r, in pixels; None: REACH times theta, for a theta that is a number. It is cut to the
            larger side of the image less 1.
    """
    reach = math.ceil(REACH * theta) if reach is None else reach
    reach = min(reach, max(mask.shape) - 1)
    steps = jnp.arange(-reach, reach + 1, dtype=mask.dtype) / theta
    return Gaussian(mask=mask, taps=jnp.exp(-0.5 * steps**2))


def apply(kernel: Gaussian, values: jax.Array) -> jax.Array:
    """The sum over all pixels, weighted by the kernel: float [H W, C] -> [H W, C].

    The operator is symmetric.
    """
    height, width = kernel.mask.shape
    mask = kernel.mask[..., None]
    x = values.reshape(height, width, -1) * mask
    x = _along(x, kernel.taps, 0)
    x = _along(x, kernel.taps, 1)
    return (x * mask).reshape(values.shape)


def _along(x: jax.Array, taps: jax.Array, axis: int) -> jax.Array:
    reach, size = taps.shape[0] // 2, x.shape[axis]
    pad = [(0, 0)] * 3
    pad[axis] = reach, reach
    padded = jnp.pad(x, pad)
    cut = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(taps.shape[0])]
    return sum(tap * part for tap, part in zip(taps, cut, strict=True))
