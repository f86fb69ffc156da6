"""The head of the Global Convolutional Network.

Peng, Zhang, Yu, Luo, Sun: Large Kernel Matters - Improve Semantic Segmentation by Global
Convolutional Network, CVPR 2017, section 3.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from segjax.errors import InputError
from segjax.models import layers, resize
from segjax.models.features import Features, Scores
from segjax.models.resize import Resize

_STAGES = ("stage2", "stage3", "stage4", "stage5")


class LineConv(nnx.Module):
    """Convolution along one axis, to few channels.

    One product to all taps' outputs, then a sum of k shifted ones: the matrix unit sees k K columns
    instead of K, and no long kernel.

    Args:
        features_in, features: channels of the input and the output.
        taps: k, odd.
        axis: 1, down, or 2, across.
        use_bias: add one number to each output channel.
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
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(layers.he_normal(rngs.params(), (taps, 1, features_in, features)))
        if use_bias:
            self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.axis = axis
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, K]."""
        dtype = self.dtype or jnp.result_type(x, jnp.float32)
        kernel = self.kernel[...].astype(dtype)
        taps, _, features_in, features = kernel.shape
        columns = kernel.transpose(2, 0, 1, 3).reshape(features_in, taps * features)
        product = (x.astype(dtype) @ columns).reshape(*x.shape[:3], taps, features)
        pads = [(0, 0)] * 5
        pads[self.axis] = (taps // 2, taps // 2)
        product, length = jnp.pad(product, pads), x.shape[self.axis]
        x = sum(
            jax.lax.slice_in_dim(product[..., t, :], t, t + length, axis=self.axis)
            for t in range(taps)
        )
        return x + self.bias[...].astype(dtype) if hasattr(self, "bias") else x


class GlobalConv(nnx.Module):
    """k x k in two ways: down then across, and across then down, summed; no norm, no activation.

    Args:
        features_in, features: channels of the input and the output.
        taps: k, odd.
        use_bias: see `LineConv`.
        **options: dtype, rngs.
    """

    def __init__(self, features_in: int, features: int, *, taps: int, use_bias: bool, **options):
        def line(count: int, axis: int) -> LineConv:
            return LineConv(count, features, taps=taps, axis=axis, use_bias=use_bias, **options)

        self.left = nnx.List([line(features_in, 1), line(features, 2)])
        self.right = nnx.List([line(features_in, 2), line(features, 1)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, K]."""
        return self.left[1](self.left[0](x)) + self.right[1](self.right[0](x))


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
        align: see `Features.to_image`; "corners" and "half_pixel" stretch between stages, too.
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
        align: str = "centres",
        dtype=None,
        rngs: nnx.Rngs,
    ):
        if taps < 1 or taps % 2 == 0:
            raise InputError(f"config.model.head.taps is odd, got {taps}.")
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
        self.align = align

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, 2 ceil(H/2), 2 ceil(W/2), K], the image's own pixels."""
        del rngs  # no dropout
        x, before = None, None
        for stage in reversed(_STAGES):
            own = getattr(self, f"{stage}_edge")(getattr(self, stage)(features.stages[stage]))
            if x is not None:
                how = features.between(before, stage, self.align)
                own = getattr(self, f"{stage}_sum")(own + _brought(x, how, own.shape[1:3]))
            x, before = own, stage
        half = features.stages["stage1"].shape[1:3]
        x = self.half(_brought(x, features.between(before, "stage1", self.align), half))
        whole = tuple(2 * length for length in half)
        x = self.whole(_brought(x, features.to_image("stage1", self.align), whole))
        return Scores(x, Resize("half_pixel", 1))


def _brought(x: jax.Array, how: Resize, size: tuple[int, int]) -> jax.Array:
    return resize.apply(x, *how.matrices(x.shape[1:3], size)).astype(x.dtype)
