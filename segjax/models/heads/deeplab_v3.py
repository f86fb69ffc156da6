"""The heads of DeepLab v3 and v3+.

Chen, Papandreou, Schroff, Adam: Rethinking Atrous Convolution for Semantic Image Segmentation, 2017
(v3, section 3.3); Chen, Zhu, Papandreou, Schroff, Adam: Encoder-Decoder with Atrous Separable
Convolution for Semantic Image Segmentation, ECCV 2018 (v3+, section 3.1). The cascaded form of v3
is a `cascade` of the ResNet under the head "classifier".
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from segjax import arrays
from segjax.errors import choose
from segjax.models import layers, resize
from segjax.models.features import Features, Scores

ORDERS = ("pool_first", "pool_last")


class ASPP(nnx.Module):
    """Atrous spatial pyramid pooling with image features.

    Its branches are a 1 x 1 convolution, a 3 x 3 convolution at each rate, and the mean over the
    image; a 1 x 1 convolution joins them.

    Args:
        features_in: channels of the input.
        width: channels of every branch and of the output.
        rates: dilations: 6, 12 and 18 at output stride 16, twice that at 8; (): only the 1 x 1 and
            the image.
        order: order in which branches are concatenated. "pool_first": image, 1 x 1, rates, as in
            the authors' code; "pool_last": 1 x 1, rates, image, as in torchvision. It matters for
            imported weights.
        norm: see `norms.make`.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features_in: int,
        width: int,
        *,
        rates: tuple[int, ...],
        order: str,
        norm: Mapping[str, Any],
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        choose("config.model.*.order", order, ORDERS)
        options: layers.BlockOptions = {"norm": norm, "dtype": dtype, "rngs": rngs}
        self.point = layers.ConvBlock(features_in, width, kernel=1, **options)
        self.atrous = nnx.List(
            layers.ConvBlock(features_in, width, kernel=3, dilation=rate, **options)
            for rate in rates
        )
        self.image = layers.ConvBlock(features_in, width, kernel=1, **options)
        count = 2 + len(rates)
        self.project = layers.ConvBlock(count * width, width, kernel=1, **options)
        self.pool_first = order == "pool_first"

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, width]."""
        mean = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True).astype(x.dtype)
        image = self.image(mean)
        image = jnp.broadcast_to(image, (*x.shape[:3], image.shape[-1]))
        branches = [self.point(x), *(branch(x) for branch in self.atrous)]
        branches = [image, *branches] if self.pool_first else [*branches, image]
        return self.project(jnp.concatenate(branches, axis=-1))


class DeepLabV3(nnx.Module):
    """ASPP, dropout and a score layer.

    Args:
        channels: stage -> its channels in the backbone, the deepest last.
        num_classes: number of classes, K.
        rates, order: see `ASPP`.
        norm: see `norms.make`.
        width: channels of the pyramid.
        dropout: rate after the pyramid: 0.1 in the authors' code, 0.5 in torchvision.
        extra_conv: whether a 3 x 3 convolution follows the pyramid, as in torchvision.
        align: see `Features.to_image`.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        rates: tuple[int, ...],
        norm: Mapping[str, Any],
        width: int = 256,
        order: str = "pool_first",
        dropout: float = 0.1,
        extra_conv: bool = False,
        align: str = "centres",
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.top = list(channels)[-1]
        options: layers.Options = {"dtype": dtype, "rngs": rngs}
        features = channels[self.top]
        self.aspp = ASPP(features, width, rates=rates, order=order, norm=norm, **options)
        self.dropout = nnx.Dropout(dropout)
        if extra_conv:
            self.conv = layers.ConvBlock(width, width, kernel=3, norm=norm, **options)
        self.score = layers.score_layer(width, num_classes, **options)
        self.align = align

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at the stride of the deepest stage."""
        x = self.dropout(self.aspp(features.stages[self.top]), rngs=rngs)
        if hasattr(self, "conv"):
            x = self.conv(x)
        return Scores(self.score(x), features.to_image(self.top, self.align))


class DeepLabV3Plus(nnx.Module):
    """ASPP, upsampled and concatenated with a fine stage, and two 3 x 3 convolutions.

    Args:
        channels: stage -> its channels in the backbone, the deepest last.
        num_classes: number of classes, K.
        rates, order: see `ASPP`.
        norm: see `norms.make`.
        width: channels of the pyramid and of the decoder.
        fine: name of the fine stage; the paper takes conv2_x, of stride 4.
        fine_width: channels that the fine stage is reduced to (48 in the paper's table 1).
        dropout: rate after the pyramid.
        align: see `Features.to_image`.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        rates: tuple[int, ...],
        norm: Mapping[str, Any],
        width: int = 256,
        fine: str = "stage2",
        fine_width: int = 48,
        order: str = "pool_first",
        dropout: float = 0.1,
        align: str = "centres",
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        choose("config.model.*.fine", fine, channels)
        self.top, self.fine = list(channels)[-1], fine
        options: layers.BlockOptions = {"norm": norm, "dtype": dtype, "rngs": rngs}
        self.aspp = ASPP(channels[self.top], width, rates=rates, order=order, **options)
        self.dropout = nnx.Dropout(dropout)
        self.reduce = layers.ConvBlock(channels[fine], fine_width, kernel=1, **options)
        self.refine = nnx.List(
            [
                layers.ConvBlock(width + fine_width, width, kernel=3, **options),
                layers.ConvBlock(width, width, kernel=3, **options),
            ]
        )
        self.score = layers.score_layer(width, num_classes, dtype=dtype, rngs=rngs)
        self.align = align

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at the stride of the fine stage."""
        x = self.dropout(self.aspp(features.stages[self.top]), rngs=rngs)
        fine = self.reduce(features.stages[self.fine])
        upsampling = features.between(self.top, self.fine, self.align)
        x = resize.resized(x, arrays.map_size(fine), upsampling, fine.dtype)
        x = jnp.concatenate([x, fine], axis=-1)
        for block in self.refine:
            x = block(x)
        return Scores(self.score(x), features.to_image(self.fine, self.align))
