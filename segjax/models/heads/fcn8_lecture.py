"""The head of a lecture's FCN-8, as a variant of Long, Shelhamer, Darrell, CVPR 2015.

Against the paper's: the deepest stage comes up by 4 at once and without a score layer, ReLU stands
on the scores of pool4 and pool3, and each transposed convolution has a kernel as large as its
stride, mixes the classes and is learned, that to the image too.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from segjax.errors import InputError
from segjax.models import resize
from segjax.models.features import Features, Scores


class FCN8Lecture(nnx.Module):
    """conv7 up by 4 + ReLU scores of pool4 up by 2 + ReLU scores of pool3; the sum up by 8.

    Kernels are drawn as Keras draws them (Glorot and Bengio 2010, uniform), biases are zero.

    Args:
        channels: of the backbone's stages, the deepest last; stage3 and stage4 are used.
        num_classes: K.
        dtype: type of the computation up to the first scores, which then are float32; parameters
            stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self, channels: Mapping[str, int], num_classes: int, *, dtype=None, rngs: nnx.Rngs
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
        """Features -> Scores [B, 8h, 8w, K], of h x w at stride 8; the image is cut out of them.

        Raises:
            InputError: if the stages do not lie one block under another.
        """
        del rngs  # no dropout
        if features.border != "same" or any(features.shifts.values()):
            raise InputError(
                "config.model.head: fcn8_lecture needs a backbone whose stages lie one block under "
                'another: vgg16 with border "same".'
            )
        pool4 = nnx.relu(self.score_pool4(features.stages["stage4"]))
        pool3 = nnx.relu(self.score_pool3(features.stages["stage3"]))
        height, width = pool3.shape[1:3]
        x = pool3.astype(jnp.float32)
        # A map that was rounded up covers more than pool3: it is cropped.
        x = x + self.up_pool4(pool4.astype(jnp.float32))[:, :height, :width]
        top = self.up_top(features.stages[self.top])
        x = x + top[:, :height, :width].astype(jnp.float32)
        return Scores(self.up_image(x), resize.Resize("half_pixel", 1))


class PatchUp(nnx.Module):
    """Transposed convolution without bias whose kernel is its stride: a pixel becomes a patch.

    Patches do not overlap, so it is one matrix product, C -> factor x factor x K, and a reshape.

    Args:
        features_in, features: C and K.
        factor: output pixels per input pixel.
        dtype: type of the computation, "highest" precision where it is float32: scores are not
            rounded on accelerators; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(self, features_in: int, features: int, *, factor: int, dtype=None, rngs: nnx.Rngs):
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
