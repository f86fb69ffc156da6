"""Residual networks as backbones, with dilations in place of strides.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, table 1; Chen et al.:
Rethinking Atrous Convolution for Semantic Image Segmentation, 2017 (output stride, multi-grid,
cascaded blocks); Zhao et al.: Pyramid Scene Parsing Network, CVPR 2017 (the stem of three
convolutions).
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx

from segjax.errors import InputError, choose
from segjax.models import layers, lines, pooling, remat
from segjax.models.features import Features

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
STEMS = ("7x7", "deep")
STRIDES_IN = ("1x1", "3x3", "last")
OUTPUT_STRIDES = (8, 16, 32)
DILATIONS = ("paper", "torchvision")
BOTTLENECKS = 50  # the smallest depth with bottlenecks; others have two 3 x 3 convolutions
_GRID = 3  # position in a plan from which on stages have the width and multi-grid of stage 5


class ResNet(nnx.Module):
    """ResNet-18, 34, 50, 101 or 152.

    Stage 1 is the stem before its pooling; stages 2 to 5 are the papers' conv2_x to conv5_x
    (torchvision's layer1 to layer4), each to its last block of the stage's stride.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm: see `norms.make`.
        stem: "7x7": one convolution; "deep": three 3 x 3 convolutions.
        stride_in: the convolution that carries a stage's stride. "3x3": that of its first block
            (torchvision, semseg). "1x1": the first of its first block (He et al., DeepLab v2);
            ResNet-18 and 34 have none. "last": a 3x3 of the last block of the stage before, with a
            sub-sampled shortcut (the authors' TensorFlow code of DeepLab v3).
        output_stride: 32, 16 or 8; stages beyond it are dilated instead of strided.
        multi_grid: factors of the dilations of the blocks of stage 5 and its copies, repeated.
        cascade: number of copies of stage 5 that follow it as stage 6 onwards, each with twice
            the dilation of the one before (v3, section 3.2).
        dilation_rule: "paper": all blocks of a stage have one dilation; "torchvision": the first
            has the dilation of the stage before.
        pool_rounding: rounding of the stem's pooling, see `pooling.max_pool`.
        width: channels of the first convolution, 64 in the paper; all others are in proportion.
        global_taps: k of the blocks of ResNet-GCN (`GlobalBottleneck`); 0: bottlenecks.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.

    Raises:
        InputError: if an option has a value that is not allowed.
    """

    def __init__(
        self,
        *,
        depth: int,
        norm: Mapping[str, Any],
        stem: str = "7x7",
        stride_in: str = "3x3",
        output_stride: int = 32,
        multi_grid: tuple[int, ...] = (1,),
        cascade: int = 0,
        dilation_rule: str = "paper",
        pool_rounding: str = "floor",
        width: int = 64,
        global_taps: int = 0,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        for key, value, known in (
            ("depth", depth, DEPTHS),
            ("stem", stem, STEMS),
            ("stride_in", stride_in, STRIDES_IN),
            ("output_stride", output_stride, OUTPUT_STRIDES),
            ("dilation_rule", dilation_rule, DILATIONS),
        ):
            choose(f"config.model.backbone.{key}", value, known)
        if depth < BOTTLENECKS and stride_in == "1x1":
            raise InputError('config.model.backbone.stride_in: ResNet-18 and 34 have no "1x1".')
        if global_taps and (depth < BOTTLENECKS or output_stride < 32 or global_taps % 2 == 0):
            raise InputError(
                "config.model.backbone.global_taps must be 0, or odd with a depth of 50 or more "
                f"and an output_stride of 32; got {global_taps} with depth={depth} and "
                f"output_stride={output_stride}."
            )
        options: layers.BlockOptions = {"norm": norm, "dtype": dtype, "rngs": rngs}
        self.stem = nnx.List(_stem(stem, width, options))
        features = 2 * width if stem == "deep" else width
        self.pool_rounding = pool_rounding
        self.channels, self.strides = {"stage1": features}, {"stage1": 2}
        self.plan, strides = _plan(
            DEPTHS[depth],
            output_stride,
            last=stride_in == "last",
            multi_grid=multi_grid,
            cascade=cascade,
            first_lags=dilation_rule == "torchvision",
        )
        self.strides |= strides
        cls: Callable[..., _Residual] = BasicBlock if depth < BOTTLENECKS else Bottleneck
        if global_taps:
            cls = functools.partial(GlobalBottleneck, taps=global_taps)
        for i, (stage, units) in enumerate(self.plan.items()):
            inner = width * 2 ** min(i, _GRID)
            blocks: list[_Residual] = []
            for unit in units:
                blocks.append(cls(features, inner, stride_in, unit, options))
                features = blocks[-1].growth * inner
            setattr(self, stage, nnx.List(blocks))
            self.channels[stage] = features

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> Features:
        """[B, H, W, 3] -> Features with stage1 to stage5 and its copies; any H, W >= 1."""
        del rngs  # no dropout
        for block in self.stem:
            x = block(x)
        stages = {"stage1": x}
        x = pooling.max_pool(x, window=3, stride=2, padding=1, rounding=self.pool_rounding)
        for stage, units in self.plan.items():
            for block, unit in zip(getattr(self, stage), units, strict=True):
                x = block(x)
                if unit.belongs:
                    stages[stage] = x
        # The first feature is centred on pixel 0, not on the centre of its block.
        shifts = {stage: ((1 - s) / 2,) * 2 for stage, s in self.strides.items()}
        return Features(stages, self.strides, shifts=shifts)


class _Unit(NamedTuple):
    """Stride and dilation of a residual block; `belongs`: its output has its stage's stride."""

    stride: int
    dilation: int
    belongs: bool


def _plan(
    depths: tuple[int, ...],
    output_stride: int,
    *,
    last: bool,
    multi_grid: tuple[int, ...],
    cascade: int,
    first_lags: bool,
) -> tuple[dict[str, list[_Unit]], dict[str, int]]:
    """The blocks of every stage, and the stride of every stage."""
    depths = (*depths, *depths[-1:] * cascade)
    nominal = [4 * 2**i for i in range(len(depths))]
    strides = [min(stride, output_stride) for stride in nominal]
    dilations = [n // stride for n, stride in zip(nominal, strides, strict=True)]
    plan: dict[str, list[_Unit]] = {}
    for i, depth in enumerate(depths):
        units = [
            _Unit(
                stride=1,
                dilation=dilations[i] * (multi_grid[b % len(multi_grid)] if i >= _GRID else 1),
                belongs=True,
            )
            for b in range(depth)
        ]
        if first_lags and i > 0:
            units[0] = units[0]._replace(dilation=dilations[i - 1])
        if i > 0 and strides[i - 1] < strides[i]:
            enters = plan[_stage(i - 1)] if last else units
            place = -1 if last else 0
            enters[place] = enters[place]._replace(stride=2, belongs=not last)
        plan[_stage(i)] = units
    return plan, {_stage(i): stride for i, stride in enumerate(strides)}


def _stage(i: int) -> str:
    return f"stage{i + 2}"


def _stem(kind: str, width: int, options: layers.BlockOptions) -> list[layers.ConvBlock]:
    if kind == "7x7":
        return [layers.ConvBlock(3, width, kernel=7, stride=2, **options)]
    return [
        layers.ConvBlock(3, width, kernel=3, stride=2, **options),
        layers.ConvBlock(width, width, kernel=3, **options),
        layers.ConvBlock(width, 2 * width, kernel=3, **options),
    ]


class _Residual(nnx.Module):
    """Convolutions with a shortcut around them, which is projected if the channels differ."""

    growth: int  # channels of the result / width
    blocks: nnx.List

    def __init__(self, features_in: int, features: int, stride: int, options: layers.BlockOptions):
        self.stride = stride
        if features_in != features:
            self.shortcut = layers.ConvBlock(
                features_in, features, kernel=1, stride=stride, activation=None, **options
            )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), features]."""
        around = x[:, :: self.stride, :: self.stride]
        if hasattr(self, "shortcut"):
            around = self.shortcut(x)
        return remat.block(layers.relu(self.inside(x) + around))

    def inside(self, x: jax.Array) -> jax.Array:
        """The convolutions between input and sum."""
        for block in self.blocks:
            x = block(x)
        return x


class BasicBlock(_Residual):
    """Residual block of two 3 x 3 convolutions; the first one has the stride.

    Args:
        features_in, width: channels of the input and the output.
        stride_in: not used: the stride has one place.
        unit: stride and dilation.
        options: norm, dtype and rngs of `layers.ConvBlock`.
    """

    growth = 1

    def __init__(
        self,
        features_in: int,
        width: int,
        stride_in: str,
        unit: _Unit,
        options: layers.BlockOptions,
    ):
        del stride_in
        super().__init__(features_in, width, unit.stride, options)
        block = functools.partial(layers.ConvBlock, kernel=3, dilation=unit.dilation, **options)
        self.blocks = nnx.List(
            [
                block(features_in, width, stride=unit.stride),
                block(width, width, activation=None),
            ]
        )


class Bottleneck(_Residual):
    """Residual block of 1 x 1 to `width` channels, 3 x 3, and 1 x 1 to four times `width`.

    Args:
        features_in, width: channels of the input and of the middle.
        stride_in: "1x1": the first convolution has the stride; any other: the 3 x 3 has it.
        unit: stride and dilation.
        options: norm, dtype and rngs of `layers.ConvBlock`.
    """

    growth = 4

    def __init__(
        self,
        features_in: int,
        width: int,
        stride_in: str,
        unit: _Unit,
        options: layers.BlockOptions,
    ):
        features = self.growth * width
        super().__init__(features_in, features, unit.stride, options)
        first, second = (unit.stride, 1) if stride_in == "1x1" else (1, unit.stride)
        self.blocks = nnx.List(
            [
                layers.ConvBlock(features_in, width, kernel=1, stride=first, **options),
                layers.ConvBlock(
                    width, width, kernel=3, stride=second, dilation=unit.dilation, **options
                ),
                layers.ConvBlock(width, features, kernel=1, activation=None, **options),
            ]
        )


class GlobalBottleneck(_Residual):
    """Residual block of ResNet-GCN: a k x k kernel as two paths of two lines, then a 1 x 1.

    A norm and a ReLU follow every line (Peng et al., CVPR 2017, section 4.1.3). The middle has the
    width at which the block costs as much as the bottleneck, as the authors say of their blocks,
    whose widths are not known to us.

    Args:
        features_in, width: channels of the input and of the middle of the bottleneck.
        stride_in: not used: the first lines have the stride.
        unit: the stride; its dilation is not used.
        options: norm, dtype and rngs of `layers.ConvBlock`.
        taps: k.
    """

    growth = 4

    def __init__(
        self,
        features_in: int,
        width: int,
        stride_in: str,
        unit: _Unit,
        options: layers.BlockOptions,
        *,
        taps: int,
    ):
        del stride_in
        features = self.growth * width
        super().__init__(features_in, features, unit.stride, options)
        inner = _same_cost(width, taps)

        def path(first: int, second: int) -> nnx.List:
            strided = lines.LineBlock(
                features_in, inner, taps=taps, axis=first, stride=unit.stride, **options
            )
            return nnx.List(
                [strided, lines.LineBlock(inner, inner, taps=taps, axis=second, **options)]
            )

        self.left, self.right = path(lines.DOWN, lines.ACROSS), path(lines.ACROSS, lines.DOWN)
        self.out = layers.ConvBlock(inner, features, kernel=1, activation=None, **options)

    def inside(self, x: jax.Array) -> jax.Array:
        """The convolutions between input and sum."""
        return self.out(self.left[1](self.left[0](x)) + self.right[1](self.right[0](x)))


def _same_cost(width: int, taps: int) -> int:
    """The width v of the middle with 2k (4wv + vv) + 4wv = 17ww, the cost of the bottleneck."""
    linear = (8 * taps + 4) * width
    root = math.sqrt(linear**2 + 4 * 2 * taps * 17 * width**2)
    return max(1, round((root - linear) / (4 * taps)))
