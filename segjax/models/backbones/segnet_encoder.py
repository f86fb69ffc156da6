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
from segjax.models import layers, unpooling
from segjax.models.features import Features


class SegNetEncoder(nnx.Module):
    """Convolutions and poolings that keep what they chose.

    Args:
        depths: convolutions of each stage: (2, 2, 3, 3, 3), VGG-16's, or (1, 1, 1, 1) of Basic.
        widths: channels of each stage.
        kernel: k, of all convolutions: 3, or 7 of Basic.
        norm: see `norms.make`.
        use_bias: of the convolutions, beside the norm, as the release has it.
        local_norm: the image first goes through `layers.local_response_norm`, as Basic's does.
        dropout: rate, for Bayesian SegNet; of single numbers.
        dropped: stages whose poolings it follows, which leaves their choices alone.
        dropped_before: stages whose poolings it comes before.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
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
        dtype=None,
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
            choose("config.model.backbone, a stage with dropout", stage, self.channels)
        self.dropout = nnx.Dropout(dropout)
        self.dropped, self.dropped_before = tuple(dropped), tuple(dropped_before)
        self.local_norm = local_norm

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> Features:
        """[B, H, W, 3] -> Features with the stages and their selections; any H, W >= 1."""
        found, selections, strides = {}, {}, {}
        x = layers.local_response_norm(x) if self.local_norm else x
        for i, stage in enumerate(self.channels, 1):
            for block in getattr(self, stage):
                x = block(x)
            if stage in self.dropped_before:
                x = self.dropout(x, rngs=rngs)
            x, selections[stage] = unpooling.max_pool(x)
            if stage in self.dropped:
                x = self.dropout(x, rngs=rngs)
            found[stage], strides[stage] = x, 2**i
        return Features(found, strides, pool_selections=selections)
