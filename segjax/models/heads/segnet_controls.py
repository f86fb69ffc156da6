"""The decoders that SegNet is compared with.

Badrinarayanan, Kendall, Cipolla: SegNet, PAMI 2017, section 3.3 and table 1; all on the encoder of
SegNet-Basic.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from segjax import arrays
from segjax.models import layers
from segjax.models.deconvolution import LearnedUp2
from segjax.models.features import Features, Scores
from segjax.models.resize import Resize


class Bilinear(nnx.Module):
    """The paper's "Bilinear-Interpolation": scores of the deepest stage, upsampled bilinearly.

    Args:
        channels: stage -> its channels in the backbone, the deepest last.
        num_classes: number of classes, K.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.top = list(channels)[-1]
        self.score = layers.score_layer(channels[self.top], num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at the stride of the deepest stage."""
        del rngs  # no dropout
        return Scores(self.score(features.stages[self.top]), features.upsampling(self.top))


class FCNBasic(nnx.Module):
    """The paper's "FCN-Basic": scores of every stage, summed by learned upsamplings by two.

    Args:
        channels: stage -> its channels in the backbone, the deepest last.
        num_classes: number of classes, K.
        kernel: side of the upsampling kernels.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        kernel: int = 8,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.stages = tuple(channels)
        for stage in self.stages:
            score = layers.score_layer(channels[stage], num_classes, dtype=dtype, rngs=rngs)
            setattr(self, f"{stage}_score", score)
            setattr(self, f"{stage}_up", LearnedUp2(num_classes, kernel=kernel, mixes=True))

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, 2 ceil(H/2), 2 ceil(W/2), K] on the image's pixels."""
        del rngs  # no dropout
        deepest, *finer = reversed(self.stages)
        x = self._upsampled(deepest, self._scored(deepest, features))
        for stage in finer:
            y = self._scored(stage, features)
            x = self._upsampled(stage, y + x[:, : y.shape[1], : y.shape[2]])
        return Scores(x, Resize("half_pixel", 1))

    def _scored(self, stage: str, features: Features) -> jax.Array:
        return getattr(self, f"{stage}_score")(features.stages[stage]).astype(jnp.float32)

    def _upsampled(self, stage: str, scores: jax.Array) -> jax.Array:
        height, width = arrays.map_size(scores)
        return getattr(self, f"{stage}_up")(scores, (2 * height, 2 * width))
