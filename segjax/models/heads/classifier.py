"""A classifier's last layer, run fully convolutionally.

Long, Shelhamer, Darrell 2015, section 3.1, figure 2: a fully connected layer is a convolution, and
a classifier gives a map of scores for an image of any size.
"""

from collections.abc import Mapping

from flax import nnx

from segjax.errors import InputError
from segjax.models import layers
from segjax.models.features import Features, Scores


class Classifier(nnx.Module):
    """1 x 1 convolution on the deepest stage: one map of scores a class.

    The layer is linear, so the mean of a map over an image is the score that the classifier with a
    global average pooling gives the image, and the map says where it comes from (class activation
    maps, Zhou et al. 2016).

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
            InputError: if the image had a border: its cells do not lie where `upsampling` has them.
        """
        del rngs  # no dropout of its own
        if features.border != "same":
            raise InputError(
                'config.model.head: classifier needs a backbone of border "same", '
                f"got {features.border!r}."
            )
        return Scores(self.classifier(features.stages[self.top]), features.upsampling(self.top))
