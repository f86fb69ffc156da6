"""The head of PSPNet.

Zhao, Shi, Qi, Wang, Jia: Pyramid Scene Parsing Network, CVPR 2017, sections 3.2 and 3.3, and the
authors' releases, in Caffe and PyTorch (semseg). The auxiliary head is `conv.ConvHead` on stage4.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from segjax import arrays
from segjax.models import layers, pooling, resize
from segjax.models.features import Features, Scores


class PyramidPooling(nnx.Module):
    """Pyramid pooling: a map concatenated with its means over bins at several scales.

    Pooling and upsampling are products with matrices that depend on the sizes alone.

    Args:
        features_in: channels of the input.
        bins: bins along a side at every scale, in the order of the output: 1, 2, 3, 6 in semseg,
            6, 3, 2, 1 in the Caffe release.
        norm: see `norms.make`.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features_in: int,
        *,
        bins: tuple[int, ...],
        norm: Mapping[str, Any],
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.bins = tuple(bins)
        width = max(1, features_in // len(bins))
        self.features = features_in + width * len(bins)
        self.reduce = nnx.List(
            layers.ConvBlock(features_in, width, kernel=1, norm=norm, dtype=dtype, rngs=rngs)
            for _ in bins
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, features], the input first and then every scale."""
        size, parts = arrays.map_size(x), [x]
        for count, reduce in zip(self.bins, self.reduce, strict=True):
            rows, cols = (pooling.bins_matrix(n, count) for n in size)
            pooled = resize.apply(x, rows, cols, x.dtype)
            up = resize.Resize("corners").matrices((count, count), size)
            parts.append(resize.apply(reduce(pooled), *up, x.dtype))
        return jnp.concatenate(parts, axis=-1)


class PSPNet(nnx.Module):
    """Pyramid pooling, a 3 x 3 convolution, dropout and a score layer.

    Args:
        channels: stage -> its channels in the backbone, the deepest last.
        num_classes: number of classes, K.
        norm: see `norms.make`.
        bins: see `PyramidPooling`.
        width: channels of the 3 x 3 convolution.
        dropout: rate before the scores.
        drop_maps: whether dropout removes whole maps, as in semseg, or single numbers, as in the
            Caffe release.
        align: see `Features.to_image`.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        norm: Mapping[str, Any],
        bins: tuple[int, ...] = (1, 2, 3, 6),
        width: int = 512,
        dropout: float = 0.1,
        drop_maps: bool = True,
        align: str = "centres",
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.top = list(channels)[-1]
        options: layers.BlockOptions = {"norm": norm, "dtype": dtype, "rngs": rngs}
        self.pyramid = PyramidPooling(channels[self.top], bins=bins, **options)
        self.conv = layers.ConvBlock(self.pyramid.features, width, kernel=3, **options)
        self.dropout = nnx.Dropout(dropout, broadcast_dims=(1, 2) if drop_maps else ())
        self.score = layers.score_layer(width, num_classes, dtype=dtype, rngs=rngs)
        self.align = align

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at the stride of the deepest stage."""
        x = self.conv(self.pyramid(features.stages[self.top]))
        x = self.dropout(x, rngs=rngs)
        return Scores(self.score(x), features.to_image(self.top, self.align))
