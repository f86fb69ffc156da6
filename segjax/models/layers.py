"""Layers that several networks share."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from segjax import arrays, strips
from segjax.models import convolution, norms, remat
from segjax.models.depthwise import depthwise

_CHUNK = 1 << 18  # numbers in a piece of `he_normal`


class Options(TypedDict):
    """Options that every layer takes."""

    dtype: jax.typing.DTypeLike | None
    rngs: nnx.Rngs


class BlockOptions(Options):
    """Options that every block of a convolution and a norm takes."""

    norm: Mapping[str, Any]


def he_normal(
    key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32
) -> jax.Array:
    """Normal numbers of variance 2 / fan-in (He et al. 2015), for kernels [..., C, K].

    They are drawn in pieces of one size, so that one compiled program serves every layer: a
    program for each shape would take a second each on CPU.
    """
    pieces = -(-math.prod(shape) // _CHUNK)
    draws = jnp.concatenate([_normals(key, piece) for piece in range(pieces)])
    scale = math.sqrt(2 / math.prod(shape[:-1]))
    return (scale * draws[: math.prod(shape)]).reshape(shape).astype(dtype)


def small_normal(
    key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32
) -> jax.Array:
    """Normal numbers of mean 0 and standard deviation 0.01."""
    return 0.01 * jax.random.normal(key, shape, dtype)


@jax.jit
def _normals(key: jax.Array, piece: int) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(key, piece), (_CHUNK,))


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0). The backward pass looks at the result, which the next layer keeps in any case.

    The rule of `nnx.relu` looks at x: then both are kept, or x is computed a second time.
    """
    return jnp.maximum(x, 0)


def _relu_forward(x):
    y = relu(x)
    return y, y


def _relu_backward(y, cotangent):
    return (jnp.where(arrays.read_again(y) > 0, cotangent, 0),)


relu.defvjp(_relu_forward, _relu_backward)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Max over 2 x 2, stride 2, rounding up as Caffe does: [B, H, W, C] -> [B, ceil(H/2), ...].

    It is the maximum of four strided slices: on CPU its gradient is ten times faster than that of
    `reduce_window`. Of equal values, the first in reading order takes the gradient.
    """
    return strips.pairs(_max_pool, to_even(x), float(jnp.finfo(x.dtype).min))


def to_even(x: jax.Array) -> jax.Array:
    """Pads [B, H, W, C] to even H and W with the lowest finite number."""
    height, width = x.shape[1:3]
    lowest = jnp.finfo(x.dtype).min
    return jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), constant_values=lowest)


# This derivative rule replaces that of `jnp.maximum`, which compares the result with each value for
# equality: if the compiler computes one of them twice, in programs that round differently, none is
# equal. Up to 6 % of the windows then passed no gradient at all.
@jax.custom_vjp
def _max_pool(x: jax.Array) -> jax.Array:
    return functools.reduce(jnp.maximum, _corners(x))


def _corners(x: jax.Array) -> list[jax.Array]:
    return [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]


def first_best(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The maximum of every 2 x 2 and which of the four it is, the first of equal ones.

    Args:
        x: float [B, H, W, C], H and W even.

    Returns:
        float [B, H/2, W/2, C], the maxima, and uint8 of the same shape: 0 to 3 in reading order.
    """
    best, *others = _corners(x)
    winner = jnp.zeros(best.shape, jnp.uint8)
    for i, corner in enumerate(others, 1):
        winner = jnp.where(corner > best, jnp.uint8(i), winner)
        best = jnp.maximum(best, corner)  # keeps a nan
    return best, winner


def to_corners(winner: jax.Array, x: jax.Array) -> jax.Array:
    """Writes each value to the pixel of 2 x 2 that `winner` names, zeros elsewhere.

    Args:
        winner: uint8 [B, h, w, C], 0 to 3 in reading order: see `first_best`.
        x: [B, h, w, C], the values.

    Returns:
        [B, 2h, 2w, C].
    """
    winner, x = (v.repeat(2, axis=1).repeat(2, axis=2) for v in (winner, x))
    down, right = (jnp.arange(winner.shape[axis], dtype=jnp.uint8) % 2 for axis in (1, 2))
    return jnp.where(winner == 2 * down[:, None, None] + right[:, None], x, 0)


def _max_pool_forward(x):
    best, winner = first_best(x)
    return best, jax.lax.optimization_barrier(winner)  # computed once: see above `_max_pool`


def _max_pool_backward(winner, cotangent):
    return (to_corners(winner, cotangent),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def local_response_norm(x: jax.Array) -> jax.Array:
    """Local response normalisation across 5 channels (Krizhevsky et al. 2012, as Caffe has it).

    [B, H, W, C] -> [B, H, W, C]: x / (1 + 1e-4 m)^0.75 with m the mean square of the channel and
    two neighbours on either side. Channels beyond the ends count as zero.
    """
    wide = x.astype(jnp.float32)  # bfloat16 loses one part in ten thousand
    channel = np.arange(x.shape[-1])
    window = np.abs(channel[:, None] - channel) <= 2  # a band matrix: one product to compile
    total = jnp.matmul(wide * wide, window.astype(np.float32), precision="highest")
    base = 1 + (1e-4 / 5) * total
    return (wide * jax.lax.rsqrt(base * jnp.sqrt(base))).astype(x.dtype)


class Conv(nnx.Module):
    """k x k convolution in the form that is fastest on its device: see `convolution.convolve`.

    Args:
        features_in, features: channels of the input and the output.
        kernel: k.
        padding: zeros on each side, or "tf": see `convolution.pads_of`.
        use_bias: whether a bias is added to each output channel.
        stride, dilation: steps between windows and between taps.
        kernel_init: draws the kernel: (key, shape) -> array.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features_in: int,
        features: int,
        *,
        kernel: int,
        padding: convolution.Padding,
        use_bias: bool,
        stride: int = 1,
        dilation: int = 1,
        kernel_init: Callable = he_normal,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        shape = (kernel, kernel, features_in, features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.padding = padding
        self.windows = {"stride": stride, "dilation": dilation}
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, h, w, K]."""
        dtype = self.dtype or jnp.result_type(x, jnp.float32)
        kernel = self.kernel[...].astype(dtype)
        pads = convolution.pads_of(self.padding, x, kernel.shape[0], **self.windows)
        x = convolution.convolve(x.astype(dtype), kernel, pads=pads, **self.windows)
        return remat.convolved(x + self.bias[...].astype(dtype) if hasattr(self, "bias") else x)


def score_layer(
    features: int, num_classes: int, *, dtype: jax.typing.DTypeLike | None = None, rngs: nnx.Rngs
) -> Conv:
    """1 x 1 convolution from `features` channels to the classes, with a bias.

    Its kernel has a standard deviation of 0.01, as in DeepLab's releases: the first prediction is
    nearly uniform.
    """
    return Conv(
        features,
        num_classes,
        kernel=1,
        padding=0,
        use_bias=True,
        kernel_init=small_normal,
        dtype=dtype,
        rngs=rngs,
    )


class DepthwiseConv(nnx.Module):
    """Depthwise k x k convolution: each channel is convolved by itself.

    Args:
        features: channels.
        padding: zeros on each side, or "tf": see `convolution.pads_of`.
        use_bias: whether a bias is added to each channel.
        kernel: k.
        stride, dilation: steps between windows and between taps.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features: int,
        *,
        padding: convolution.Padding,
        use_bias: bool,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(he_normal(rngs.params(), (kernel, kernel, 1, features)))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.padding = padding
        self.stride, self.dilation = stride, dilation
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, h, w, C]."""
        dtype = self.dtype or jnp.result_type(x, jnp.float32)
        kernel = self.kernel[...].astype(dtype)
        pads = convolution.pads_of(self.padding, x, kernel.shape[0], self.stride, self.dilation)
        x = depthwise(x.astype(dtype), kernel, self.stride, self.dilation, pads)
        return remat.convolved(x + self.bias[...].astype(dtype) if hasattr(self, "bias") else x)


class ConvBlock(nnx.Module):
    """Convolution, norm and activation: the block that most networks are built from.

    Args:
        features_in, features: channels of the input and the output.
        kernel: k, the side of the windows.
        norm: see `norms.make`.
        padding: zeros on each side, or "tf" (`convolution.pads_of`); None: as many as keep the size
            at stride 1, for odd k.
        use_bias: None: a bias only without a norm, which would subtract it again and leave its
            gradient nothing but rounding errors. True: also with a norm, as some releases have it.
        depthwise: whether each channel is convolved by itself; `features` equals `features_in`.
        stride, dilation: steps between windows and between taps.
        activation: the last step, or None.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features_in: int,
        features: int,
        *,
        kernel: int,
        norm: Mapping[str, Any],
        padding: convolution.Padding | None = None,
        use_bias: bool | None = None,
        depthwise: bool = False,
        stride: int = 1,
        dilation: int = 1,
        activation: Callable | None = relu,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        make = DepthwiseConv if depthwise else functools.partial(Conv, features_in)
        self.conv = make(
            features,
            kernel=kernel,
            padding=dilation * (kernel // 2) if padding is None else padding,
            use_bias=norm["name"] == "none" if use_bias is None else use_bias,
            stride=stride,
            dilation=dilation,
            dtype=dtype,
            rngs=rngs,
        )
        layer = norms.make(norm, features, dtype=dtype, rngs=rngs)
        if layer is not None:
            self.norm = layer
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, h, w, K]."""
        x = self.conv(x)
        if hasattr(self, "norm") and self.activation is relu:
            return self.norm(x, relu=True)
        x = self.norm(x) if hasattr(self, "norm") else x
        return self.activation(x) if self.activation else x
