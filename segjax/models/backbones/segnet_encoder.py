"""The encoders of SegNet and SegNet-Basic.

Badrinarayanan, Kendall, Cipolla: SegNet: A Deep Convolutional Encoder-Decoder Architecture for
Image Segmentation, PAMI 2017, section 3; Kendall, Badrinarayanan, Cipolla: Bayesian SegNet, BMVC
2017; their release (SegNet-Tutorial).
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from segjax.errors import choose
from segjax.models import layers, remat, unpooling
from segjax.models.features import Features


class SegNetEncoder(nnx.Module):
    """Convolutions and poolings that keep the places of their maxima, for a decoder that unpools.

    Args:
        depths: convolutions of each stage: (2, 2, 3, 3, 3), as in VGG-16, or (1, 1, 1, 1) in Basic.
        widths: channels of each stage.
        kernel: side of all kernels: 3, in Basic 7.
        norm: see `norms.make`.
        use_bias: whether convolutions have a bias beside the norm, as in the release.
        local_norm: whether the image first passes `layers.local_response_norm`, as in Basic.
        dropout: rate of dropout on single numbers, for Bayesian SegNet.
        dropped: stages with dropout after the pooling, which does not change the places.
        dropped_before: stages with dropout before the pooling.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.

    Raises:
        InputError: if a stage with dropout does not exist.
    """

    def __init__(
        self,
        *,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        kernel: int,
        norm: Mapping[str, Any],
        use_bias: bool = True,
        local_norm: bool = False,
        dropout: float = 0.0,
        dropped: tuple[str, ...] = (),
        dropped_before: tuple[str, ...] = (),
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        features_in, self.channels = 3, {}
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
            blocks = []
            for _ in range(depth):
                blocks.append(
                    layers.ConvBlock(
                        features_in,
                        width,
                        kernel=kernel,
                        norm=norm,
                        use_bias=use_bias,
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                features_in = width
            setattr(self, f"stage{i}", nnx.List(blocks))
            self.channels[f"stage{i}"] = width
        for stage in (*dropped, *dropped_before):
            choose("config.model.backbone.dropped or .dropped_before", stage, self.channels)
        self.dropout = nnx.Dropout(dropout)
        self.dropped, self.dropped_before = tuple(dropped), tuple(dropped_before)
        self.local_norm = local_norm

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> Features:
        """[B, H, W, 3] -> Features with the stages and their selections; any H, W >= 1."""
        stages, selections, strides = {}, {}, {}
        x = layers.local_response_norm(x) if self.local_norm else x
        for i, stage in enumerate(self.channels, 1):
            for block in getattr(self, stage):
                x = block(x)
            if stage in self.dropped_before:
                x = self.dropout(x, rngs=rngs)
            x, selections[stage] = unpooling.max_pool(x)
            if stage in self.dropped:
                x = self.dropout(x, rngs=rngs)
            stages[stage] = x = remat.block(x)
            strides[stage] = 2**i
        return Features(stages, strides, pool_selections=selections)
