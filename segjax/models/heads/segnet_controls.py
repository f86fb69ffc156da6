"""The decoders that SegNet's are held against.

Badrinarayanan, Kendall, Cipolla: SegNet, PAMI 2017, section 3.3 and table 1; all on the encoder of
SegNet-Basic.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import nnx

from segjax.models import layers
from segjax.models.deconvolution import LearnedUp2
from segjax.models.features import Features, Scores
from segjax.models.resize import Resize


class Bilinear(nnx.Module):
    """The paper's "Bilinear-Interpolation": the deepest stage scored and brought up, unlearned.

    Args:
        channels: of the backbone's stages, the deepest last.
        num_classes: K.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self, channels: Mapping[str, int], num_classes: int, *, dtype=None, rngs: nnx.Rngs
    ):
        self.top = list(channels)[-1]
        self.score = layers.score_layer(channels[self.top], num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at the stride of the deepest stage."""
        del rngs  # no dropout
        return Scores(self.score(features.stages[self.top]), features.upsampling(self.top))


class FCNBasic(nnx.Module):
    """The paper's "FCN-Basic": every stage scored; brought up, learned, and summed.

    Args:
        channels: of the backbone's stages, the deepest last.
        num_classes: K.
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
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.stages = tuple(channels)
        for stage in self.stages:
            score = layers.score_layer(channels[stage], num_classes, dtype=dtype, rngs=rngs)
            setattr(self, f"{stage}_score", score)
            setattr(self, f"{stage}_up", LearnedUp2(num_classes, kernel=kernel, mixes=True))

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, 2 ceil(H/2), 2 ceil(W/2), K], the image's own pixels."""
        del rngs  # no dropout
        x = None
        for stage in reversed(self.stages):
            own = getattr(self, f"{stage}_score")(features.stages[stage])
            x = own.astype(jnp.float32) + (0 if x is None else x[:, : own.shape[1], : own.shape[2]])
            x = getattr(self, f"{stage}_up")(x, tuple(2 * n for n in x.shape[1:3]))
        return Scores(x, Resize("half_pixel", 1))
