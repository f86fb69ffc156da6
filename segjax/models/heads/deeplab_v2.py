"""The head of DeepLab v2 on ResNet-101.

Chen et al.: DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution,
and Fully Connected CRFs, PAMI 2018, section 3.2 and figure 7, as in the release: no layer between
the deepest stage and the scores.
"""

from collections.abc import Mapping

import jax
from flax import nnx

from segjax import arrays
from segjax.models import layers
from segjax.models.features import Features, Scores


class DeepLabV2(nnx.Module):
    """Atrous spatial pyramid: the sum of 3 x 3 convolutions to the classes at several rates.

    Args:
        channels: stage -> its channels in the backbone, the deepest last.
        num_classes: number of classes, K.
        rates: dilations; (12,) is LargeFOV.
        align: see `Features.to_image`.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        rates: tuple[int, ...] = (6, 12, 18, 24),
        align: str = "centres",
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.top = list(channels)[-1]
        self.branches = nnx.List(
            layers.Conv(
                channels[self.top],
                num_classes,
                kernel=3,
                padding=rate,
                dilation=rate,
                use_bias=True,
                kernel_init=layers.small_normal,
                dtype=dtype,
                rngs=rngs,
            )
            for rate in rates
        )
        self.align = align

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at the stride of the deepest stage."""
        del rngs  # no dropout
        x = features.stages[self.top]
        x = arrays.total(branch(x) for branch in self.branches)
        return Scores(x, features.to_image(self.top, self.align))
