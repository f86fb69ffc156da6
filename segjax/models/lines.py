"""Large kernels built from lines: convolutions along one axis, and pairs of them.

Peng, Zhang, Yu, Luo, Sun: Large Kernel Matters - Improve Semantic Segmentation by Global
Convolutional Network, CVPR 2017, section 3.2.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from segjax import arrays, strips
from segjax.models import layers, norms, remat

DOWN, ACROSS = 1, 2  # axes of [B, H, W, C]


class LineConv(nnx.Module):
    """Convolution along one axis, to few channels.

    One matrix product gives the outputs of all taps, and k shifted copies of them are summed: the
    matrix unit gets k K columns instead of K, and there is no long kernel.

    Args:
        features_in, features: channels of the input and the output, C and K.
        taps: k, odd.
        axis: DOWN or ACROSS.
        use_bias: whether a bias is added to each output channel.
        stride: step between windows, along both axes.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features_in: int,
        features: int,
        *,
        taps: int,
        axis: int,
        use_bias: bool,
        stride: int = 1,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(layers.he_normal(rngs.params(), (taps, 1, features_in, features)))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.axis = axis
        self.stride = stride
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), K]."""
        dtype = self.dtype or jnp.result_type(x, jnp.float32)
        kernel = self.kernel[...].astype(dtype)
        taps, _, features_in, features = kernel.shape
        x = x[:, :: self.stride] if self.axis == ACROSS else x[:, :, :: self.stride]
        columns = kernel.transpose(2, 0, 1, 3).reshape(features_in, taps * features)
        product = (x.astype(dtype) @ columns).reshape(*x.shape[:3], taps, features)
        if self.axis == DOWN:
            rows = -(-x.shape[1] // self.stride)
            x = strips.windows(
                self._sums, product, reach=taps, rows=rows, stride=self.stride, before=taps // 2
            )
        else:
            pads = [(0, 0)] * 5
            pads[self.axis] = (taps // 2, taps // 2)
            x = self._sums(jnp.pad(product, pads))
        return x + self.bias[...].astype(dtype) if hasattr(self, "bias") else x

    def _sums(self, product: jax.Array) -> jax.Array:
        """The sums of the taps: [B, H + k - 1, W, k, K] -> [B, ceil(H / stride), W, K]."""
        taps = product.shape[3]
        length = product.shape[self.axis] - taps + 1
        return arrays.total(
            jax.lax.slice_in_dim(
                product[..., t, :], t, t + length, stride=self.stride, axis=self.axis
            )
            for t in range(taps)
        )


class LineBlock(nnx.Module):
    """`LineConv`, norm and ReLU.

    Args:
        features_in, features: channels of the input and the output.
        norm: see `norms.make`. Without a norm the convolution has a bias.
        **options: taps, axis, stride, dtype and rngs of `LineConv`.
    """

    def __init__(self, features_in: int, features: int, *, norm: Mapping[str, Any], **options: Any):
        bare = norm["name"] == "none"
        self.conv = LineConv(features_in, features, use_bias=bare, **options)
        layer = norms.make(norm, features, dtype=options["dtype"], rngs=options["rngs"])
        if layer is not None:
            self.norm = layer

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), K]."""
        x = remat.convolved(self.conv(x))
        return self.norm(x, relu=True) if hasattr(self, "norm") else layers.relu(x)


class GlobalConv(nnx.Module):
    """k x k kernel as the sum of two paths, down then across and across then down.

    There is no norm and no activation.

    Args:
        features_in, features: channels of the input and the output.
        **options: taps, use_bias, dtype and rngs of `LineConv`.
    """

    def __init__(self, features_in: int, features: int, **options: Any):
        def pair(first: int, second: int) -> nnx.List:
            return nnx.List(
                [
                    LineConv(features_in, features, axis=first, **options),
                    LineConv(features, features, axis=second, **options),
                ]
            )

        self.left, self.right = pair(DOWN, ACROSS), pair(ACROSS, DOWN)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, K]."""
        return self.left[1](self.left[0](x)) + self.right[1](self.right[0](x))
