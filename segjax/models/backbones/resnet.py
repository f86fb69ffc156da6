"""Residual networks, dilated as segmentation wants them.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, table 1; Chen et al.:
Rethinking Atrous Convolution for Semantic Image Segmentation, 2017 (output stride, multi-grid,
cascaded blocks); Zhao et al.: Pyramid Scene Parsing Network, CVPR 2017 (the stem of three
convolutions).
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx

from segjax.errors import InputError, choose
from segjax.models import layers, lines, pooling
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
_BOTTLENECKS = 50  # from this depth on; below it blocks are two 3 x 3 convolutions
_GRID = 3  # from here on, counted from 0, stages have the width and the grid of stage 5


class ResNet(nnx.Module):
    """ResNet-18, 34, 50, 101 or 152.

    Stage 1 is the stem before its pooling; stages 2 to 5 are the papers' conv2_x to conv5_x
    (torchvision's layer1 to layer4), each to its last block of the stage's stride.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm: see `norms.make`.
        stem: "7x7", or "deep", three 3 x 3 convolutions.
        stride_in: where a stage strides. "3x3" of its first block (torchvision, semseg); "1x1" of
            its first block (He et al., DeepLab v2); "last" block of the stage before, its shortcut
            sub-sampled (the authors' TensorFlow code of DeepLab v3). Blocks of 18 and 34 have no
            1x1.
        output_stride: 32, 16 or 8; stages beyond it are dilated instead.
        multi_grid: factors of the dilations of the blocks of stage 5 and of its copies, repeated.
        cascade: copies of stage 5 behind it, stage 6 onwards, each dilated twice as much (v3,
            section 3.2).
        dilation_rule: "paper": all blocks of a stage are dilated alike; "torchvision": the first
            as the stage before it.
        pool_rounding: of the stem's pooling, see `pooling.max_pool`.
        width: channels of the first convolution; the paper's is 64, all others in proportion.
        global_taps: k of ResNet-GCN's blocks (`GlobalBottleneck`); 0 keeps bottlenecks.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
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
        dtype=None,
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
        if depth < _BOTTLENECKS and stride_in == "1x1":
            raise InputError('config.model.backbone.stride_in: ResNet-18 and 34 have no "1x1".')
        if global_taps and (depth < _BOTTLENECKS or output_stride < 32 or global_taps % 2 == 0):
            raise InputError(
                "config.model.backbone.global_taps is odd, or 0, and above 0 only with a depth of "
                f"50 or more and an output_stride of 32; got {global_taps}."
            )
        options = {"norm": norm, "dtype": dtype, "rngs": rngs}
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
        cls = BasicBlock if depth < _BOTTLENECKS else Bottleneck
        if global_taps:
            cls = functools.partial(GlobalBottleneck, taps=global_taps)
        for i, (stage, units) in enumerate(self.plan.items()):
            inner, blocks = width * 2 ** min(i, _GRID), []
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
        found = {"stage1": x}
        x = pooling.max_pool(x, window=3, stride=2, padding=1, rounding=self.pool_rounding)
        for stage, units in self.plan.items():
            for block, unit in zip(getattr(self, stage), units, strict=True):
                x = block(x)
                if unit.belongs:
                    found[stage] = x
        # Every stride begins at pixel 0, half a block before the centre of its block.
        shifts = {stage: ((1 - s) / 2,) * 2 for stage, s in self.strides.items()}
        return Features(found, self.strides, shifts=shifts)


class _Unit(NamedTuple):
    """What a residual block does with space; `belongs`: its output has the stride of its stage."""

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
) -> tuple[dict[str, tuple[_Unit, ...]], dict[str, int]]:
    """The blocks of every stage, and its stride."""
    depths = (*depths, *depths[-1:] * cascade)
    nominal = [4 * 2**i for i in range(len(depths))]
    strides = [min(stride, output_stride) for stride in nominal]
    dilations = [n // stride for n, stride in zip(nominal, strides, strict=True)]
    plan = {}
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


def _stem(kind: str, width: int, options: dict[str, Any]) -> list[layers.ConvBlock]:
    if kind == "7x7":
        return [layers.ConvBlock(3, width, kernel=7, stride=2, **options)]
    return [
        layers.ConvBlock(3, width, kernel=3, stride=2, **options),
        layers.ConvBlock(width, width, kernel=3, **options),
        layers.ConvBlock(width, 2 * width, kernel=3, **options),
    ]


class _Residual(nnx.Module):
    """Convolutions with a shortcut around them, which is projected where channels differ."""

    def __init__(self, features_in: int, features: int, stride: int, options: dict[str, Any]):
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
        return nnx.relu(self.inside(x) + around)

    def inside(self, x: jax.Array) -> jax.Array:
        """What the shortcut goes around."""
        for block in self.blocks:
            x = block(x)
        return x


class BasicBlock(_Residual):
    """Two 3 x 3 convolutions, the first of which strides.

    Args:
        features_in, width: channels of the input and the output.
        stride_in: not used; there is one place.
        unit: stride and dilation.
        options: norm, dtype and rngs of `layers.ConvBlock`.
    """

    growth = 1

    def __init__(
        self, features_in: int, width: int, stride_in: str, unit: _Unit, options: dict[str, Any]
    ):
        del stride_in
        super().__init__(features_in, width, unit.stride, options)
        options = options | {"kernel": 3, "dilation": unit.dilation}
        self.blocks = nnx.List(
            [
                layers.ConvBlock(features_in, width, stride=unit.stride, **options),
                layers.ConvBlock(width, width, activation=None, **options),
            ]
        )


class Bottleneck(_Residual):
    """1 x 1 to `width`, 3 x 3, 1 x 1 to four times that.

    Args:
        features_in, width: channels of the input and of the middle.
        stride_in: "1x1" strides in the first convolution, all else in the 3 x 3.
        unit: stride and dilation.
        options: norm, dtype and rngs of `layers.ConvBlock`.
    """

    growth = 4

    def __init__(
        self, features_in: int, width: int, stride_in: str, unit: _Unit, options: dict[str, Any]
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
    """ResNet-GCN's: k x k in two ways of two lines each, a norm and a ReLU behind every line.

    Peng et al., CVPR 2017, section 4.1.3. The middle is as wide as makes the block cost what the
    bottleneck does, as the authors say of theirs; their own widths are not known to us.

    Args:
        features_in, width: channels of the input and of the bottleneck's middle.
        stride_in: not used; the first lines stride.
        unit: stride; there is no dilation.
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
        options: dict[str, Any],
        *,
        taps: int,
    ):
        del stride_in
        features = self.growth * width
        super().__init__(features_in, features, unit.stride, options)
        inner = _same_cost(width, taps)

        def way(first: int, second: int) -> nnx.List:
            strided = lines.LineBlock(
                features_in, inner, taps=taps, axis=first, stride=unit.stride, **options
            )
            return nnx.List(
                [strided, lines.LineBlock(inner, inner, taps=taps, axis=second, **options)]
            )

        self.left, self.right = way(lines.DOWN, lines.ACROSS), way(lines.ACROSS, lines.DOWN)
        self.out = layers.ConvBlock(inner, features, kernel=1, activation=None, **options)

    def inside(self, x: jax.Array) -> jax.Array:
        """What the shortcut goes around."""
        return self.out(self.left[1](self.left[0](x)) + self.right[1](self.right[0](x)))


def _same_cost(width: int, taps: int) -> int:
    """The middle v with 2k (4w v + v v) + 4w v = 17 w w, the bottleneck's 4ww + 9ww + 4ww."""
    linear = (8 * taps + 4) * width
    root = math.sqrt(linear**2 + 4 * 2 * taps * 17 * width**2)
    return max(1, round((root - linear) / (4 * taps)))
