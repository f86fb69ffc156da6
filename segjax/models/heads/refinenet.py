"""The head of RefineNet.

Lin, Milan, Shen, Reid: RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic
Segmentation, CVPR 2017, section 3 and figure 7, and the authors' release for details that the paper
leaves open.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from segjax import arrays
from segjax.errors import InputError, choose
from segjax.models import layers, pooling, resize
from segjax.models.features import Features, Scores

CHAINS = ("pool_first", "conv_first")
CASCADES = {  # number of blocks -> their stages: coarsest block first, finest stage of each first
    4: (("stage5",), ("stage4",), ("stage3",), ("stage2",)),
    2: (("stage4", "stage5"), ("stage2", "stage3")),
    1: (("stage2", "stage3", "stage4", "stage5"),),
}
_WIDE = 512  # stages with more channels get dropout: 1024 and 2048 in the paper's ResNets


def _conv(features_in: int, features: int, *, use_bias: bool = False, **options) -> layers.Conv:
    """3 x 3 convolution."""
    return layers.Conv(features_in, features, kernel=3, padding=1, use_bias=use_bias, **options)


class ResidualUnit(nnx.Module):
    """Residual unit: x + conv(relu(conv(relu(x)))), 3 x 3; the first convolution has a bias.

    Args:
        features: channels.
        **options: kernel_init, dtype and rngs of `layers.Conv`.
    """

    def __init__(self, features: int, **options: Any):
        self.first = _conv(features, features, use_bias=True, **options)
        self.second = _conv(features, features, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> the same."""
        return x + self.second(layers.relu(self.first(layers.relu(x))))


class ChainedPooling(nnx.Module):
    """Chained pooling: the sum of a map and all results of a chain of poolings and convolutions.

    Args:
        features: channels.
        blocks: number of pairs of a 5 x 5 pooling and a 3 x 3 convolution.
        chain: order in a pair, "pool_first" or "conv_first".
        **options: kernel_init, dtype and rngs of `layers.Conv`.

    Raises:
        InputError: if the order is unknown.
    """

    def __init__(self, features: int, *, blocks: int, chain: str, **options: Any):
        choose("config.model.*.chain", chain, CHAINS)
        self.pool_first = chain == "pool_first"
        self.convs = nnx.List(_conv(features, features, **options) for _ in range(blocks))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> the same."""
        total = x = layers.relu(x)
        for conv in self.convs:
            x = conv(_pooled(x)) if self.pool_first else _pooled(conv(x))
            total = total + x
        return total


class InputPath(nnx.Module):
    """The path of a stage into a block: a convolution, two residual units, and one if it is fused.

    Args:
        features_in: channels of the stage.
        features: channels of the path.
        joined: channels of the block if several paths meet there; None: the path is alone, and
            there is no last convolution.
        **options: kernel_init, dtype and rngs of `layers.Conv`.
    """

    def __init__(self, features_in: int, features: int, joined: int | None, **options: Any):
        self.reduce = _conv(features_in, features, **options)
        self.before = nnx.List(ResidualUnit(features, **options) for _ in range(2))
        if joined:
            self.join = _conv(features, joined, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, h, w, features or joined]."""
        x = self.reduce(x)
        for unit in self.before:
            x = unit(x)
        return self.join(x) if hasattr(self, "join") else x


class Refinement(nnx.Module):
    """Second half of a block, after the fusion: chained pooling and three residual units.

    Args:
        features: channels.
        onward: channels of a convolution to the finer block; None: there is none, in the finest.
        blocks, chain: see `ChainedPooling`.
        **options: kernel_init, dtype and rngs of `layers.Conv`.
    """

    def __init__(
        self, features: int, onward: int | None, *, blocks: int, chain: str, **options: Any
    ):
        self.chain = ChainedPooling(features, blocks=blocks, chain=chain, **options)
        self.after = nnx.List(ResidualUnit(features, **options) for _ in range(3))
        if onward:
            self.onward = _conv(features, onward, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, h, w, C or onward]."""
        x = self.chain(x)
        for unit in self.after:
            x = unit(x)
        return self.onward(x) if hasattr(self, "onward") else x


class RefineNet(nnx.Module):
    """RefineNet on stages 2 to 5 of a backbone without dilations.

    Args:
        channels: stage -> its channels in the backbone; stage2 to stage5 are needed.
        num_classes: number of classes, K.
        width: channels of the blocks; the path of stage 5 has twice as many.
        cascades: number of blocks: 4 (one for each stage), 2 (one for the two coarser stages, one
            for the two finer) or 1 (for all). The paper does not give the widths of the paths for
            2 and 1; here they are those for 4.
        blocks: pairs of the chained pooling: 2 in the paper, 4 in the released models.
        chain: "pool_first", the order of the paper, or "conv_first", that of later models.
        dropout: rate on stages of more than 512 channels and before the scores.
        align: see `Features.to_image`; "corners" and "half_pixel" also stretch stages to the next
            one.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.

    Raises:
        InputError: if an option is not allowed or the backbone lacks a stage.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        width: int = 256,
        cascades: int = 4,
        blocks: int = 4,
        chain: str = "pool_first",
        dropout: float = 0.5,
        align: str = "centres",
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        choose("config.model.*.cascades", cascades, CASCADES)
        self.groups = CASCADES[cascades]
        stages = [stage for group in self.groups for stage in group]
        missing = [stage for stage in sorted(stages) if stage not in channels]
        if missing:
            raise InputError(
                f"config.model.*: refinenet needs a backbone with {', '.join(missing)}; this "
                f"one has {', '.join(channels)}."
            )
        options = {"kernel_init": layers.small_normal, "dtype": dtype, "rngs": rngs}
        for i, group in enumerate(self.groups):
            fused = len(group) + (i > 0) > 1
            features = width if fused else 2 * width  # stage 5 alone in the first block
            for stage in group:
                wide = 2 * width if stage == "stage5" else width
                path = InputPath(channels[stage], wide, features if fused else None, **options)
                setattr(self, stage, path)
            onward = None if group is self.groups[-1] else width
            block = Refinement(features, onward, blocks=blocks, chain=chain, **options)
            setattr(self, f"{group[0]}_refined", block)
        self.wide = tuple(stage for stage in stages if channels[stage] > _WIDE)
        self.dropout = nnx.Dropout(dropout)
        self.score = _conv(width, num_classes, use_bias=True, **options)
        self.align = align

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at the stride of stage 2."""
        coarser: list[tuple[str, jax.Array]] = []  # the result of the block before, if any
        for group in self.groups:
            finest = group[0]
            paths = list(coarser)
            for stage in group:
                values = features.stages[stage]
                if stage in self.wide:
                    values = self.dropout(values, rngs=rngs)
                paths.append((stage, getattr(self, stage)(values)))
            size = arrays.map_size(features.stages[finest])
            fused = arrays.total(
                _upsampled(x, features, stage, finest, size, self.align) for stage, x in paths
            )
            x = getattr(self, f"{finest}_refined")(fused)
            coarser = [(finest, x)]
        x = self.score(self.dropout(x, rngs=rngs))
        return Scores(x, features.to_image(finest, self.align))


def _upsampled(x, features: Features, stage: str, finest: str, size, align: str) -> jax.Array:
    """A path on the grid of the finest stage, of `size`."""
    if stage == finest:
        return x
    return resize.resized(x, size, features.between(stage, finest, align), x.dtype)


def _pooled(x: jax.Array) -> jax.Array:
    return pooling.max_pool(x, window=5, stride=1, padding=2, rounding="floor")
