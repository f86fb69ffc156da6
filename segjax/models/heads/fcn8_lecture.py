"""The head of a lecture's FCN-8, a variant of Long, Shelhamer, Darrell, CVPR 2015.

It differs from the paper: the deepest stage is upsampled by 4 at once and without a score layer, a
ReLU follows the scores of pool4 and pool3, and every transposed convolution, the one to the image
included, is learned, mixes the classes and has a kernel as large as its stride.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from segjax.errors import InputError
from segjax.models import layers, resize
from segjax.models.features import Features, Scores


class FCN8Lecture(nnx.Module):
    """The lecture's head: conv7 upsampled by 4, pool4 by 2, and pool3, their sum upsampled by 8.

    Kernels are initialised as in Keras (Glorot and Bengio 2010, uniform), biases with zeros.

    Args:
        channels: stage -> its channels in the backbone, the deepest last, with stage3 and
            stage4.
        num_classes: number of classes, K.
        dtype: type of the computation up to the first scores; from there on it is float32, and
            parameters stay float32.
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
        def score(stage: str) -> nnx.Conv:
            return nnx.Conv(
                channels[stage],
                num_classes,
                (1, 1),
                padding="VALID",
                kernel_init=nnx.initializers.glorot_uniform(),
                dtype=dtype,
                rngs=rngs,
            )

        self.top = list(channels)[-1]
        self.up_top = PatchUp(channels[self.top], num_classes, factor=4, dtype=dtype, rngs=rngs)
        self.score_pool4 = score("stage4")
        self.up_pool4 = PatchUp(num_classes, num_classes, factor=2, rngs=rngs)
        self.score_pool3 = score("stage3")
        self.up_image = PatchUp(num_classes, num_classes, factor=8, rngs=rngs)

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, 8h, 8w, K] on the image's pixels, with stage3 of h x w.

        Rows and columns beyond the image are cropped.

        Raises:
            InputError: if the backbone has a border or shifts.
        """
        del rngs  # no dropout
        if features.border != "same" or any(features.shifts.values()):
            raise InputError(
                "config.model.*: fcn8_lecture needs a backbone without border and shifts: vgg16 "
                'with border "same".'
            )
        pool4 = layers.relu(self.score_pool4(features.stages["stage4"]))
        pool3 = layers.relu(self.score_pool3(features.stages["stage3"]))
        height, width = pool3.shape[1:3]
        x = pool3.astype(jnp.float32)
        # Poolings round up, so upsampled maps are cropped to pool3.
        x = x + self.up_pool4(pool4.astype(jnp.float32))[:, :height, :width]
        top = self.up_top(features.stages[self.top])
        x = x + top[:, :height, :width].astype(jnp.float32)
        return Scores(self.up_image(x), resize.Resize("half_pixel", 1))


class PatchUp(nnx.Module):
    """Transposed convolution without bias whose kernel equals its stride: pixels become patches.

    Patches do not overlap, so it is one matrix product, C -> factor x factor x K, and a reshape.

    Args:
        features_in, features: channels of the input and the output, C and K.
        factor: output pixels per input pixel.
        dtype: type of the computation, float32 by default, at "highest" precision: accelerators
            would round the scores. Parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features_in: int,
        features: int,
        *,
        factor: int,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        shape = (factor, factor, features_in, features)
        self.kernel = nnx.Param(nnx.initializers.glorot_uniform()(rngs.params(), shape))
        self.factor = factor
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] -> [B, factor h, factor w, K]."""
        dtype = self.dtype or jnp.float32
        kernel = self.kernel[...].astype(dtype)
        patches = jnp.einsum("bhwc,ijck->bhiwjk", x.astype(dtype), kernel, precision="highest")
        batch, height, factor, width, _, features = patches.shape
        return patches.reshape(batch, height * factor, width * factor, features)
