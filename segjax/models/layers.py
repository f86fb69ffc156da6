"""Layers that several networks share."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from segjax.models import convolution

_CHUNK = 1 << 18


def he_normal(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Normal with variance 2 / fan-in (He et al. 2015), for kernels [..., C, K].

    Drawn in pieces of one size, so that one compiled program serves every layer of a network: a
    program for each shape costs a second each on CPU.
    """
    pieces = -(-math.prod(shape) // _CHUNK)
    draws = jnp.concatenate([_normals(key, piece) for piece in range(pieces)])
    scale = math.sqrt(2 / math.prod(shape[:-1]))
    return (scale * draws[: math.prod(shape)]).reshape(shape).astype(dtype)


@jax.jit
def _normals(key: jax.Array, piece: int) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(key, piece), (_CHUNK,))


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Max over 2 x 2, stride 2, rounding up as Caffe does: [B, H, W, C] -> [B, ceil(H/2), ...].

    The maximum of four strided slices: on CPU its gradient is ten times faster than that of
    `reduce_window`. Where values tie, the first in reading order takes the gradient.
    """
    height, width = x.shape[1:3]
    lowest = jnp.finfo(x.dtype).min
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=lowest)
    return _max_pool(x)


# Its own derivative rule: that of `jnp.maximum` compares the result with each value for equality,
# and a compiler that computes one of them twice, in programs that round differently, finds none
# equal. Up to 6 % of the windows then passed no gradient at all.
@jax.custom_vjp
def _max_pool(x: jax.Array) -> jax.Array:
    return functools.reduce(jnp.maximum, _corners(x))


def _corners(x: jax.Array) -> list[jax.Array]:
    return [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]


def _max_pool_forward(x):
    best, *others = _corners(x)
    winner = jnp.zeros(best.shape, jnp.uint8)
    for i, corner in enumerate(others, 1):
        winner = jnp.where(corner > best, jnp.uint8(i), winner)
        best = jnp.maximum(best, corner)  # keeps a nan
    return best, jax.lax.optimization_barrier(winner)  # computed once, for the same reason


def _max_pool_backward(winner, cotangent):
    winner, cotangent = (v.repeat(2, axis=1).repeat(2, axis=2) for v in (winner, cotangent))
    down, right = (jnp.arange(winner.shape[axis], dtype=jnp.uint8) % 2 for axis in (1, 2))
    corner = 2 * down[:, None, None] + right[:, None]
    return (jnp.where(winner == corner, cotangent, 0),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


class ConvBlock(nnx.Module):
    """3 x 3 convolution, batch norm if asked for, ReLU.

    Args:
        features_in, features: channels of the input and the output.
        padding: zeros on each side.
        batch_norm: normalise before the ReLU. The convolution then has no bias: the norm would take
            it away again, and its gradient would be nothing but rounding.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features_in: int,
        features: int,
        *,
        padding: int,
        batch_norm: bool,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.conv = nnx.Conv(
            features_in,
            features,
            (3, 3),
            strides=1,
            padding=padding,
            use_bias=not batch_norm,
            kernel_init=he_normal,
            dtype=dtype,
            conv_general_dilated=_conv_3x3,
            rngs=rngs,
        )
        if batch_norm:
            self.norm = nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', K]."""
        x = self.conv(x)
        if hasattr(self, "norm"):
            x = self.norm(x)
        return nnx.relu(x)


def _conv_3x3(x, kernel, strides, padding, **fixed):
    """Stands in `nnx.Conv` for `jax.lax.conv_general_dilated`."""
    del strides, fixed  # `ConvBlock` leaves them at stride 1, no dilation, one group
    return convolution.conv_3x3(x, kernel, padding[0][0])


class LargeConv(nnx.Module):
    """k x k convolution with many channels on a small map, such as VGG's fc6 and fc7.

    See `convolution.large`; for k = 1, too, XLA:CPU would compute the kernel's gradient as a
    convolution with a kernel as large as the map.

    Args:
        features_in, features: channels of the input and the output.
        kernel: k.
        padding: zeros on each side.
        use_bias: add one number to each output channel.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features_in: int,
        features: int,
        *,
        kernel: int,
        padding: int,
        use_bias: bool,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        shape = (kernel, kernel, features_in, features)
        self.kernel = nnx.Param(he_normal(rngs.params(), shape))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.padding = padding
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H + 2 padding - k + 1, ..., K]."""
        dtype = self.dtype or jnp.result_type(x, jnp.float32)
        pad = ((0, 0), (self.padding,) * 2, (self.padding,) * 2, (0, 0))
        x = jnp.pad(x.astype(dtype), pad)
        x = convolution.large(x, self.kernel[...].astype(dtype))
        return x + self.bias[...].astype(dtype) if hasattr(self, "bias") else x
