"""The head of RefineNet.

Lin, Milan, Shen, Reid: RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic
Segmentation, CVPR 2017, section 3, and the authors' release, where the paper leaves something open.
"""

from collections.abc import Mapping

import jax
from flax import nnx

from segjax.errors import InputError, choose
from segjax.models import layers, pooling, resize
from segjax.models.features import Features, Scores

CHAINS = ("pool_first", "conv_first")
_STAGES = ("stage2", "stage3", "stage4", "stage5")
_WIDE = 512  # stages with more channels get dropout in the paper's ResNets: 1024 and 2048


def _conv(features_in: int, features: int, *, use_bias: bool = False, **options) -> layers.Conv:
    return layers.Conv(features_in, features, kernel=3, padding=1, use_bias=use_bias, **options)


class ResidualUnit(nnx.Module):
    """x + conv(relu(conv(relu(x)))), 3 x 3; the first has a bias."""

    def __init__(self, features: int, **options):
        self.first = _conv(features, features, use_bias=True, **options)
        self.second = _conv(features, features, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> the same."""
        return x + self.second(nnx.relu(self.first(nnx.relu(x))))


class ChainedPooling(nnx.Module):
    """The map and what a chain of 5 x 5 poolings and 3 x 3 convolutions makes of it, summed."""

    def __init__(self, features: int, *, blocks: int, chain: str, **options):
        choose("config.model.head.chain", chain, CHAINS)
        self.pool_first = chain == "pool_first"
        self.convs = nnx.List(_conv(features, features, **options) for _ in range(blocks))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> the same."""
        total = x = nnx.relu(x)
        for conv in self.convs:
            x = conv(_pooled(x)) if self.pool_first else _pooled(conv(x))
            total = total + x
        return total


class Refinement(nnx.Module):
    """One RefineNet: a stage, and what comes from the coarser one, to a refined map.

    Args:
        features_in: channels of the stage.
        features: of the map.
        onward: channels that go on to the finer one, or None of the finest.
        blocks, chain: see `RefineNet`.
        fuses: whether something comes from a coarser one.
        **options: dtype, rngs.
    """

    def __init__(self, features_in, features, onward, *, blocks, chain, fuses, **options):
        self.reduce = _conv(features_in, features, **options)
        self.before = nnx.List(ResidualUnit(features, **options) for _ in range(2))
        if fuses:
            self.join = _conv(features, features, **options)
        self.chain = ChainedPooling(features, blocks=blocks, chain=chain, **options)
        self.after = nnx.List(ResidualUnit(features, **options) for _ in range(3))
        if onward:
            self.onward = _conv(features, onward, **options)

    def __call__(self, x: jax.Array, coarser: jax.Array | None) -> jax.Array:
        """[B, H, W, C] of the stage, and [B, H, W, features] or None."""
        x = self.reduce(x)
        for unit in self.before:
            x = unit(x)
        if coarser is not None:
            x = self.join(x) + coarser
        x = self.chain(x)
        for unit in self.after:
            x = unit(x)
        return self.onward(x) if hasattr(self, "onward") else x


class RefineNet(nnx.Module):
    """RefineNet-4 cascaded, on stages 2 to 5 of a network that is not dilated.

    Args:
        channels: of the backbone's stages.
        num_classes: K.
        width: channels of the finer three; the coarsest has twice as many.
        blocks: of chained pooling: 2 in the paper, 4 in the released models.
        chain: "pool_first", the paper's order, or "conv_first", that of the later models.
        dropout: rate on stages of more than 512 channels and before the scores.
        align: see `Features.to_image`; "corners" and "half_pixel" stretch between stages, too.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        width: int = 256,
        blocks: int = 4,
        chain: str = "pool_first",
        dropout: float = 0.5,
        align: str = "centres",
        dtype=None,
        rngs: nnx.Rngs,
    ):
        missing = [stage for stage in _STAGES if stage not in channels]
        if missing:
            raise InputError(f"config.model.head: refinenet needs {', '.join(missing)}.")
        options = {"kernel_init": layers.small_normal, "dtype": dtype, "rngs": rngs}
        for stage in _STAGES:
            top = stage == _STAGES[-1]
            part = Refinement(
                channels[stage],
                2 * width if top else width,
                None if stage == _STAGES[0] else width,
                blocks=blocks,
                chain=chain,
                fuses=not top,
                **options,
            )
            setattr(self, stage, part)
        self.wide = tuple(stage for stage in _STAGES if channels[stage] > _WIDE)
        self.dropout = nnx.Dropout(dropout)
        self.score = _conv(width, num_classes, use_bias=True, **options)
        self.align = align

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at the stride of stage 2."""
        x, before = None, None
        for stage in reversed(_STAGES):
            own = features.stages[stage]
            if stage in self.wide:
                own = self.dropout(own, rngs=rngs)
            if x is not None:
                how = features.between(before, stage, self.align)
                matrices = how.matrices(x.shape[1:3], own.shape[1:3])
                x = resize.apply(x, *matrices).astype(own.dtype)
            x, before = getattr(self, stage)(own, x), stage
        x = self.score(self.dropout(x, rngs=rngs))
        return Scores(x, features.to_image(before, self.align))


def _pooled(x: jax.Array) -> jax.Array:
    return pooling.max_pool(x, window=5, stride=1, padding=2, rounding="floor")
