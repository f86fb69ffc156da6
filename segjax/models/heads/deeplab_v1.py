"""The head of DeepLab v1, and of v2 on VGG-16.

Chen et al.: Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, ICLR
2015; DeepLab, PAMI 2018; the multi-scale form as in the Caffe release (DeepLab-MSc-LargeFOV).
"""

from collections.abc import Mapping

import jax
from flax import nnx

from segjax import arrays
from segjax.errors import InputError
from segjax.models import layers, resize
from segjax.models.features import Features, Scores

_SIDES = ("image", "stage1", "stage2", "stage3", "stage4")
_SIDE_WIDTH = 128


class DeepLabV1(nnx.Module):
    """The sum of a score layer (fc8) on every fc7.

    With one fc7 this is LargeFOV of v1, with four it is the pyramid of v2 on VGG-16.

    Args:
        channels: stage -> its channels in the backbone; stages whose names begin with "fc7" are
            scored.
        num_classes: number of classes, K.
        multi_scale: section 4.3 of v1 as released: branches of two layers of 128 channels also
            score the image and the outputs of the first four poolings; all scores are brought to
            the image and summed there.
        dropout: rate in these branches.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.

    Raises:
        InputError: if the backbone lacks a stage.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        multi_scale: bool = False,
        dropout: float = 0.5,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        options: layers.Options = {"dtype": dtype, "rngs": rngs}
        self.tops = [stage for stage in channels if stage.startswith("fc7")]
        missing = [stage for stage in _SIDES if stage not in channels] if multi_scale else []
        if not self.tops or missing:
            wanted = ", ".join(missing) or "fc7"
            raise InputError(
                f"config.model.*: deeplab_v1 needs a backbone with {wanted}: vgg16_atrous."
            )
        self.scores = nnx.List(
            layers.score_layer(channels[top], num_classes, **options) for top in self.tops
        )
        self.multi_scale = multi_scale
        if multi_scale:
            for stage in _SIDES:
                branch = Side(channels[stage], num_classes, dropout=dropout, **options)
                setattr(self, f"side_{stage}", branch)

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at the stride of fc7; with `multi_scale`, on pixels."""
        tops = [features.stages[top] for top in self.tops]
        x = arrays.total(score(top) for score, top in zip(self.scores, tops, strict=True))
        upsampling = features.upsampling(self.tops[0])
        if not self.multi_scale:
            return Scores(x, upsampling)
        size = arrays.map_size(features.stages["image"])
        x = resize.resized(x, size, upsampling)
        for stage in _SIDES:
            y = getattr(self, f"side_{stage}")(features.stages[stage], rngs=rngs)
            x += resize.resized(y, size, features.upsampling(stage))
        return Scores(x, resize.Resize("half_pixel", 1))


class Side(nnx.Module):
    """3 x 3 and 1 x 1 convolution of 128 channels, with ReLU and dropout, and a score layer.

    Args:
        features_in: channels of the input.
        num_classes: number of classes, K.
        dropout: rate after each of the two.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features_in: int,
        num_classes: int,
        *,
        dropout: float,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        options: layers.Options = {"dtype": dtype, "rngs": rngs}
        plain: layers.BlockOptions = {"norm": {"name": "none"}, **options}
        self.conv1 = layers.ConvBlock(features_in, _SIDE_WIDTH, kernel=3, **plain)
        self.conv2 = layers.ConvBlock(_SIDE_WIDTH, _SIDE_WIDTH, kernel=1, **plain)
        self.dropout = nnx.Dropout(dropout)
        self.score = layers.score_layer(_SIDE_WIDTH, num_classes, **options)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """[B, h, w, C] -> [B, h, w, K]."""
        for conv in (self.conv1, self.conv2):
            x = self.dropout(conv(x), rngs=rngs)
        return self.score(x)
