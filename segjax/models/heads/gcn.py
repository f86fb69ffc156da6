"""The head of the Global Convolutional Network.

Peng, Zhang, Yu, Luo, Sun: Large Kernel Matters - Improve Semantic Segmentation by Global
Convolutional Network, CVPR 2017, section 3.
"""

from collections.abc import Mapping

import jax
from flax import nnx

from segjax.errors import InputError, choose
from segjax.models import layers, resize
from segjax.models.deconvolution import LearnedUp2
from segjax.models.features import Features, Scores
from segjax.models.lines import GlobalConv
from segjax.models.resize import Resize

UPSAMPLINGS = ("bilinear", "learned")
_STAGES = ("stage2", "stage3", "stage4", "stage5")


class BoundaryRefinement(nnx.Module):
    """x + conv(relu(conv(x))), 3 x 3."""

    def __init__(self, features: int, *, use_bias: bool, **options):
        self.first, self.second = (
            layers.Conv(features, features, kernel=3, padding=1, use_bias=use_bias, **options)
            for _ in range(2)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> the same."""
        return x + self.second(nnx.relu(self.first(x)))


class GCN(nnx.Module):
    """A global convolution on stages 2 to 5, each refined, brought up, summed and refined again.

    Args:
        channels: of the backbone's stages.
        num_classes: K.
        taps: k, odd: 15 for VOC, 25 for Cityscapes in the paper.
        use_bias: of all convolutions; the paper's counts have none.
        upsampling: "bilinear" or "learned", the paper's deconvolutions, here 4 x 4 among all
            classes, which start bilinear.
        align: of "bilinear": see `Features.to_image`; "corners" and "half_pixel" stretch between
            stages, too.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        taps: int = 15,
        use_bias: bool = False,
        upsampling: str = "bilinear",
        align: str = "centres",
        dtype=None,
        rngs: nnx.Rngs,
    ):
        if taps < 1 or taps % 2 == 0:
            raise InputError(f"config.model.head.taps is odd, got {taps}.")
        choose("config.model.head.upsampling", upsampling, UPSAMPLINGS)
        missing = [stage for stage in ("stage1", *_STAGES) if stage not in channels]
        if missing:
            raise InputError(f"config.model.head: gcn needs {', '.join(missing)}.")
        options = {"use_bias": use_bias, "dtype": dtype, "rngs": rngs}
        for stage in _STAGES:
            block = GlobalConv(channels[stage], num_classes, taps=taps, **options)
            setattr(self, stage, block)
            setattr(self, f"{stage}_edge", BoundaryRefinement(num_classes, **options))
        for name in ("stage4_sum", "stage3_sum", "stage2_sum", "half", "whole"):
            setattr(self, name, BoundaryRefinement(num_classes, **options))
        if upsampling == "learned":
            for stage in (*_STAGES, "stage1"):
                setattr(self, f"{stage}_up", LearnedUp2(num_classes, mixes=True))
        self.align = align

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, 2 ceil(H/2), 2 ceil(W/2), K], the image's own pixels."""
        del rngs  # no dropout
        x, before = None, None
        for stage in reversed(_STAGES):
            own = getattr(self, f"{stage}_edge")(getattr(self, stage)(features.stages[stage]))
            if x is not None:
                how = features.between(before, stage, self.align)
                own = own + self._brought(before, x, how, own.shape[1:3])
                own = getattr(self, f"{stage}_sum")(own)
            x, before = own, stage
        half = features.stages["stage1"].shape[1:3]
        how = features.between(before, "stage1", self.align)
        x = self.half(self._brought(before, x, how, half))
        whole = tuple(2 * length for length in half)
        x = self.whole(self._brought("stage1", x, features.to_image("stage1", self.align), whole))
        return Scores(x, Resize("half_pixel", 1))

    def _brought(self, stage: str, x: jax.Array, how: Resize, size: tuple[int, int]) -> jax.Array:
        """Scores of a stage to the next grid."""
        if hasattr(self, f"{stage}_up"):
            return getattr(self, f"{stage}_up")(x, size).astype(x.dtype)
        return resize.resized(x, size, how).astype(x.dtype)
