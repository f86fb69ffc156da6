"""A head of one 3 x 3 convolution and a score layer on any stage.

It is the auxiliary head of PSPNet (Zhao et al., CVPR 2017, section 3.3) and the head of
torchvision's fcn_resnet50 and fcn_resnet101.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from segjax.errors import choose
from segjax.models import layers
from segjax.models.features import Features, Scores


class ConvHead(nnx.Module):
    """3 x 3 convolution, norm, ReLU, dropout, and a 1 x 1 convolution to the classes.

    Args:
        channels: stage -> its channels in the backbone, the deepest last.
        num_classes: number of classes, K.
        width: channels of the 3 x 3 convolution: 256 on PSPNet's stage4; torchvision has a quarter
            of the stage's channels.
        norm: see `norms.make`.
        stage: name of the stage that is scored; "": the deepest.
        dropout: rate before the scores.
        drop_maps: whether dropout removes whole maps (PyTorch's Dropout2d) or single numbers.
        align: see `Features.to_image`.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        width: int,
        norm: Mapping[str, Any],
        stage: str = "",
        dropout: float = 0.1,
        drop_maps: bool = False,
        align: str = "centres",
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.stage = stage or list(channels)[-1]
        choose("config.model.*.stage", self.stage, channels)
        options: layers.Options = {"dtype": dtype, "rngs": rngs}
        self.conv = layers.ConvBlock(channels[self.stage], width, kernel=3, norm=norm, **options)
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1, 2) if drop_maps else ())
        self.score = layers.score_layer(width, num_classes, **options)
        self.align = align

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at the stride of the stage."""
        x = self.dropout(self.conv(features.stages[self.stage]), rngs=rngs)
        return Scores(self.score(x), features.to_image(self.stage, self.align))
