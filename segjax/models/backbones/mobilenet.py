"""MobileNetV2 as a backbone.

Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR
2018, table 2, with TensorFlow's padding, which the weights of Keras and of the authors' DeepLab
need.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from segjax.errors import choose
from segjax.models import convolution, layers, norms, remat
from segjax.models.features import Features

# Channels, number of blocks, stride of the first block: table 2. All blocks but the first expand
# by 6.
_GROUPS = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
OUTPUT_STRIDES = (8, 16, 32)


class MobileNetV2(nnx.Module):
    """MobileNetV2: the first convolution, 17 inverted residuals, and optionally the last one.

    Stage N is the last block of stride 2^N. With an output stride below 32, stages 4 or 5 keep the
    output stride and are dilated. The last convolution is stage "top".

    Args:
        norm: see `norms.make`; its epsilon is 1e-3 in Keras.
        width: factor of all channels, which are rounded to multiples of 8.
        output_stride: 32, 16 or 8.
        top: channels of the last 1 x 1 convolution, 1280 for the classifier; 0: no such layer, as
            in DeepLab.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.

    Raises:
        InputError: if the output stride is unknown.
    """

    def __init__(
        self,
        *,
        norm: Mapping[str, Any],
        width: float = 1.0,
        output_stride: int = 32,
        top: int = 0,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        choose("config.model.backbone.output_stride", output_stride, OUTPUT_STRIDES)
        options: layers.BlockOptions = {"norm": norm, "dtype": dtype, "rngs": rngs}
        features = _rounded(32 * width)
        self.stem = layers.ConvBlock(
            3, features, kernel=3, stride=2, padding="tf", activation=jax.nn.relu6, **options
        )
        blocks: list[InvertedResidual] = []
        self.channels, self.ends, stride, dilation, number = {}, {}, 2, 1, 1
        for channels, count, group_stride in _GROUPS:
            channels = _rounded(channels * width)
            number += group_stride > 1
            rate = dilation  # a block whose stride is removed keeps the dilation before it
            if stride * group_stride > output_stride:
                group_stride, dilation = 1, dilation * group_stride
            for i in range(count):
                block = InvertedResidual(
                    features,
                    channels,
                    expansion=6 if blocks else 1,
                    stride=group_stride if i == 0 else 1,
                    dilation=rate if i == 0 else dilation,
                    **options,
                )
                blocks.append(block)
                features = channels
            stride *= group_stride
            self.channels[f"stage{number}"] = features
            self.ends[f"stage{number}"] = len(blocks)
        self.blocks = nnx.List(blocks)
        if top:
            self.top = layers.ConvBlock(features, top, kernel=1, activation=jax.nn.relu6, **options)
            self.channels["top"] = top

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> Features:
        """[B, H, W, 3] -> Features with stage1 to stage5, and top if it exists; any H, W >= 1."""
        del rngs  # no dropout
        grid = _Grid().strided(x)
        x = self.stem(x)
        stages, grids, begin = {}, {}, 0
        for stage, end in self.ends.items():
            for block in self.blocks[begin:end]:
                if block.stride > 1:
                    grid = grid.strided(x)
                x = block(x)
            stages[stage], grids[stage], begin = x, grid, end
        if hasattr(self, "top"):
            stages["top"], grids["top"] = self.top(x), grid
        strides = {stage: grid.stride for stage, grid in grids.items()}
        return Features(stages, strides, shifts={stage: g.shift for stage, g in grids.items()})


@dataclasses.dataclass(frozen=True)
class _Grid:
    """The places of features: (row, column) of the first one's image pixel, and their spacing."""

    origin: tuple[int, int] = (0, 0)
    stride: int = 1

    def strided(self, x: jax.Array) -> "_Grid":
        """The grid after a 3 x 3 convolution of stride 2 on x; a feature lies at its middle tap."""
        pads = convolution.pads_of("tf", x, 3, 2, 1)
        row, col = (
            o + self.stride * (1 - before) for o, (before, _) in zip(self.origin, pads, strict=True)
        )
        return _Grid((row, col), 2 * self.stride)

    @property
    def shift(self) -> tuple[float, float]:
        """(down, right) as in `Features.shifts`."""
        down, right = (o - (self.stride - 1) / 2 for o in self.origin)
        return down, right


class InvertedResidual(nnx.Module):
    """Inverted residual: 1 x 1 to more channels, depthwise 3 x 3, 1 x 1 to fewer channels.

    No activation follows the last convolution. The input is added if stride and channels allow.

    Args:
        features_in, features: channels of the input and the output.
        expansion: factor of the channels in between; 1: there is no first convolution.
        stride, dilation: steps between windows and between taps of the 3 x 3 convolution.
        norm: see `norms.make`.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features_in: int,
        features: int,
        *,
        expansion: int,
        stride: int,
        dilation: int,
        norm: Mapping[str, Any],
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        inner = expansion * features_in
        options: layers.Options = {"dtype": dtype, "rngs": rngs}
        if expansion > 1:
            self.expand = layers.ConvBlock(
                features_in, inner, kernel=1, norm=norm, activation=jax.nn.relu6, **options
            )
        self.depthwise = layers.DepthwiseConv(
            inner,
            padding="tf",
            stride=stride,
            dilation=dilation,
            use_bias=norm["name"] == "none",
            **options,
        )
        layer = norms.make(norm, inner, **options)
        if layer is not None:
            self.norm = layer
        self.project = layers.ConvBlock(
            inner, features, kernel=1, norm=norm, activation=None, **options
        )
        self.stride = stride
        self.residual = stride == 1 and features_in == features

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), K]."""
        y = self.expand(x) if hasattr(self, "expand") else x
        y = self.depthwise(y)
        if hasattr(self, "norm"):
            y = self.norm(y)
        y = self.project(jax.nn.relu6(y))
        return remat.block(x + y if self.residual else y)


def _rounded(channels: float) -> int:
    """Channels rounded to a multiple of 8, 90 % or more of them, as in the release.

    Fewer than 4 are rounded down to a whole number, at least 1.
    """
    if channels < 4:
        return max(1, int(channels))
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
