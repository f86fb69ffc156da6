"""The last layer of a classifier as a convolution.

Long, Shelhamer, Darrell 2015, section 3.1, figure 2: a fully connected layer is a convolution, and
a classifier gives a map of scores for an image of any size.
"""

from collections.abc import Mapping

import jax
from flax import nnx

from segjax.errors import InputError
from segjax.models import layers
from segjax.models.features import Features, Scores


class Classifier(nnx.Module):
    """1 x 1 convolution on the deepest stage: one map of scores for each class.

    The layer is linear, so the mean of a map is the score that the classifier with global average
    pooling gives the image, and the map shows the places that contribute to it (class activation
    maps, Zhou et al. 2016).

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
        self.classifier = nnx.Conv(
            channels[self.top],
            num_classes,
            (1, 1),
            padding="VALID",
            kernel_init=layers.he_normal,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at the stride of the deepest stage.

        Raises:
            InputError: if the backbone pads the image ("caffe"): `upsampling` does not hold then.
        """
        del rngs  # no dropout
        if features.border != "same":
            raise InputError(
                'config.model.*: classifier needs a backbone with border "same", '
                f"got {features.border!r}."
            )
        return Scores(self.classifier(features.stages[self.top]), features.upsampling(self.top))
