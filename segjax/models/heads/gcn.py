"""The head of the Global Convolutional Network.

Peng, Zhang, Yu, Luo, Sun: Large Kernel Matters - Improve Semantic Segmentation by Global
Convolutional Network, CVPR 2017, section 3.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from segjax import arrays
from segjax.arrays import Size
from segjax.errors import InputError, choose
from segjax.models import layers, resize
from segjax.models.deconvolution import LearnedUp2
from segjax.models.features import Features, Scores
from segjax.models.lines import GlobalConv
from segjax.models.resize import Resize

UPSAMPLINGS = ("bilinear", "learned")
_STAGES = ("stage2", "stage3", "stage4", "stage5")


class BoundaryRefinement(nnx.Module):
    """Boundary refinement: x + conv(relu(conv(x))) with 3 x 3 convolutions.

    Args:
        features: channels.
        use_bias: whether the convolutions have a bias.
        **options: dtype and rngs of `layers.Conv`.
    """

    def __init__(self, features: int, *, use_bias: bool, **options: Any):
        self.first, self.second = (
            layers.Conv(features, features, kernel=3, padding=1, use_bias=use_bias, **options)
            for _ in range(2)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> the same."""
        return x + self.second(layers.relu(self.first(x)))


class GCN(nnx.Module):
    """Global convolutions and boundary refinements on stages 2 to 5, upsampled and summed.

    From stage 5 on, scores are upsampled by 2, added to those of the next stage and refined again,
    and so on to the image's pixels.

    Args:
        channels: stage -> its channels in the backbone; stage1 to stage5 are needed.
        num_classes: number of classes, K.
        taps: k, odd: 15 for VOC, 25 for Cityscapes in the paper.
        use_bias: whether convolutions have a bias; the paper's counts have none.
        upsampling: "bilinear", or "learned": the paper's deconvolutions, here 4 x 4 between all
            classes and bilinear at the start.
        align: for "bilinear": see `Features.to_image`; "corners" and "half_pixel" also stretch
            stages to the next one.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.

    Raises:
        InputError: if an option is not allowed or the backbone lacks a stage.
    """

    half: BoundaryRefinement
    whole: BoundaryRefinement

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        taps: int = 15,
        use_bias: bool = False,
        upsampling: str = "bilinear",
        align: str = "centres",
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        if taps < 1 or taps % 2 == 0:
            raise InputError(f"config.model.*.taps must be odd, 1 or more; got {taps}.")
        choose("config.model.*.upsampling", upsampling, UPSAMPLINGS)
        missing = [stage for stage in ("stage1", *_STAGES) if stage not in channels]
        if missing:
            raise InputError(
                f"config.model.*: gcn needs a backbone with {', '.join(missing)}; this one has "
                f"{', '.join(channels)}."
            )
        options: layers.Options = {"dtype": dtype, "rngs": rngs}
        refinement = functools.partial(
            BoundaryRefinement, num_classes, use_bias=use_bias, **options
        )
        for stage in _STAGES:
            block = GlobalConv(
                channels[stage], num_classes, taps=taps, use_bias=use_bias, **options
            )
            setattr(self, stage, block)
            setattr(self, f"{stage}_edge", refinement())
        for name in ("stage4_sum", "stage3_sum", "stage2_sum", "half", "whole"):
            setattr(self, name, refinement())
        if upsampling == "learned":
            for stage in (*_STAGES, "stage1"):
                setattr(self, f"{stage}_up", LearnedUp2(num_classes, mixes=True))
        self.align = align

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, 2 ceil(H/2), 2 ceil(W/2), K] on the image's pixels."""
        del rngs  # no dropout
        before, *finer = reversed(_STAGES)
        x = self._scored(before, features)
        for stage in finer:
            scores = self._scored(stage, features)
            rule = features.between(before, stage, self.align)
            scores = scores + self._upsampled(before, x, rule, arrays.map_size(scores))
            x, before = getattr(self, f"{stage}_sum")(scores), stage
        half = arrays.map_size(features.stages["stage1"])
        rule = features.between(before, "stage1", self.align)
        x = self.half(self._upsampled(before, x, rule, half))
        whole = 2 * half[0], 2 * half[1]
        x = self.whole(self._upsampled("stage1", x, features.to_image("stage1", self.align), whole))
        return Scores(x, Resize("half_pixel", 1))

    def _scored(self, stage: str, features: Features) -> jax.Array:
        return getattr(self, f"{stage}_edge")(getattr(self, stage)(features.stages[stage]))

    def _upsampled(self, stage: str, x: jax.Array, rule: Resize, size: Size) -> jax.Array:
        """Scores of a stage on the next grid, of `size`; `rule` is for bilinear upsampling."""
        if hasattr(self, f"{stage}_up"):
            return getattr(self, f"{stage}_up")(x, size).astype(x.dtype)
        return resize.resized(x, size, rule, x.dtype)
