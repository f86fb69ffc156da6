"""GoogLeNet as a fully convolutional backbone.

Szegedy et al.: Going Deeper with Convolutions, CVPR 2015, table 1, as the Caffe release (BVLC
GoogLeNet) builds it: no batch norm, local response normalisation, poolings that round up. Long,
Shelhamer, Darrell 2015 make an FCN of it by dropping the average pooling (section 4.1).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from segjax.models import layers, pooling, remat
from segjax.models.features import Features

INCEPTIONS = {  # name: channels of 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}

# Distance from the centre of the first block to the centre of its feature, in image pixels: the
# first convolution is centred on pixel 0, and the poolings have no padding.
_SHIFTS = {f"stage{i}": (by, by) for i, by in enumerate((-0.5, 0.5, 2.5, 6.5, 14.5), 1)}


class GoogLeNet(nnx.Module):
    """GoogLeNet: three convolutions and nine Inception modules.

    Stages end before the poolings: with the first convolution, the third, and modules 3b, 4e and
    5b.

    Args:
        width: channels of the first convolution, 64 in the paper; all others are in proportion.
        dropout: rate after the last module, 0.4 in the paper.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        *,
        width: int,
        dropout: float,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        def scaled(channels: int) -> int:
            return max(1, channels * width // 64)

        first, second = scaled(64), scaled(192)
        options: layers.BlockOptions = {"norm": {"name": "none"}, "dtype": dtype, "rngs": rngs}
        self.conv1 = layers.ConvBlock(3, first, kernel=7, stride=2, **options)
        self.conv2_reduce = layers.ConvBlock(first, first, kernel=1, **options)
        self.conv2 = layers.ConvBlock(first, second, kernel=3, **options)
        self.channels = {"stage1": first, "stage2": second}
        features = second
        for name, channels in INCEPTIONS.items():
            module = Inception(features, tuple(map(scaled, channels)), dtype=dtype, rngs=rngs)
            setattr(self, f"inception_{name}", module)
            features = module.features
            self.channels[f"stage{name[0]}"] = features
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> Features:
        """[B, H, W, 3] -> Features with stage1 to stage5; any H, W >= 1."""
        stages = {}
        stages["stage1"] = x = self.conv1(x)
        x = layers.local_response_norm(_halved(x))
        x = self.conv2(self.conv2_reduce(x))
        stages["stage2"] = x = remat.block(layers.local_response_norm(x))
        for stage, modules in (("stage3", "ab"), ("stage4", "abcde"), ("stage5", "ab")):
            x = _halved(x)
            for letter in modules:
                x = remat.block(getattr(self, f"inception_{stage[-1]}{letter}")(x))
            stages[stage] = x
        stages["stage5"] = self.dropout(x, rngs=rngs)
        strides = {f"stage{i}": 2**i for i in range(1, 6)}
        return Features(stages, strides, shifts=_SHIFTS)


class Inception(nnx.Module):
    """Inception module: branches of 1x1, 3x3, 5x5 and pooling, concatenated.

    Args:
        features_in: channels of the input.
        channels: channels of the layers, as in a row of INCEPTIONS.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features_in: int,
        channels: tuple[int, ...],
        *,
        dtype: jax.typing.DTypeLike | None,
        rngs: nnx.Rngs,
    ):
        one, three_in, three, five_in, five, pooled = channels
        options: layers.BlockOptions = {"norm": {"name": "none"}, "dtype": dtype, "rngs": rngs}
        self.conv1x1 = layers.ConvBlock(features_in, one, kernel=1, **options)
        self.conv3x3_reduce = layers.ConvBlock(features_in, three_in, kernel=1, **options)
        self.conv3x3 = layers.ConvBlock(three_in, three, kernel=3, **options)
        self.conv5x5_reduce = layers.ConvBlock(features_in, five_in, kernel=1, **options)
        self.conv5x5 = layers.ConvBlock(five_in, five, kernel=5, **options)
        self.pool_proj = layers.ConvBlock(features_in, pooled, kernel=1, **options)
        self.features = one + three + five + pooled

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, features]."""
        branches = (
            self.conv1x1(x),
            self.conv3x3(self.conv3x3_reduce(x)),
            self.conv5x5(self.conv5x5_reduce(x)),
            self.pool_proj(pooling.max_pool(x, window=3, stride=1, padding=1)),
        )
        return jnp.concatenate(branches, axis=-1)


def _halved(x: jax.Array) -> jax.Array:
    return pooling.max_pool(x, window=3, stride=2, padding=0)
