"""The skip head of FCN-8s.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, and
Shelhamer, Long, Darrell, PAMI 2017 with its released networks, whose crop offsets stand below.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from segjax.errors import InputError
from segjax.models import resize
from segjax.models.features import Features, Scores

UPSAMPLINGS = ("fixed", "learned")


class FCN8s(nnx.Module):
    """Scores of fc7, pool4 and pool3, each brought up by 2 and summed; the image is 8 times larger.

    The last step to the image is always fixed bilinear, as in the paper; it is part of `Scores`.

    Args:
        channels: of the backbone's stages; stage3, stage4 and fc7 are used.
        num_classes: K.
        upsampling: of the two 2x steps: "fixed" bilinear as a matrix product (PAMI) or "learned", a
            grouped transposed convolution that starts bilinear (CVPR).
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        upsampling: str = "fixed",
        dtype=None,
        rngs: nnx.Rngs,
    ):
        if upsampling not in UPSAMPLINGS:
            raise InputError(
                f"config.model.head: unknown upsampling {upsampling!r}; "
                f"known: {', '.join(UPSAMPLINGS)}."
            )

        def score(stage: str) -> nnx.Conv:
            # Zero-initialised: the first prediction is uniform, and the skips enter gently.
            zeros = nnx.initializers.zeros
            return nnx.Conv(
                channels[stage],
                num_classes,
                (1, 1),
                padding="VALID",
                kernel_init=zeros,
                dtype=dtype,
                rngs=rngs,
            )

        self.score_fc7 = score("fc7")
        self.score_pool4 = score("stage4")
        self.score_pool3 = score("stage3")
        if upsampling == "learned":
            self.up_fc7 = LearnedUp2(num_classes)
            self.up_pool4 = LearnedUp2(num_classes)

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at stride 8."""
        del rngs  # no dropout of its own
        caffe = features.border == "caffe"
        x = self.score_fc7(features.stages["fc7"])
        skips = (
            ("up_fc7", self.score_pool4, "stage4", 5),
            ("up_pool4", self.score_pool3, "stage3", 9),
        )
        for up, score, stage, offset in skips:
            skip = score(features.stages[stage])
            if caffe:  # the upsampled map has its own size, the skip is cropped to it
                height, width = 2 * x.shape[1] + 2, 2 * x.shape[2] + 2
                skip = skip[:, offset : offset + height, offset : offset + width]
            else:  # a map that was rounded up covers more than the skip: it is cropped
                height, width = skip.shape[1:3]
            start = 0 if caffe else 1
            if hasattr(self, up):
                x = getattr(self, up)(x, (height, width), start=start)
            elif caffe:
                x = _resized(x, (height, width), resize.Resize("transposed", 2))
            else:
                x = _resized(x, (height, width), resize.Resize("half_pixel", 2))
            x = x + skip.astype(jnp.float32)
        if caffe:
            return Scores(x, resize.Resize("transposed", 8, offset=31))
        return Scores(x, resize.Resize("half_pixel", 8))


class LearnedUp2(nnx.Module):
    """Transposed convolution 4 x 4, stride 2, one kernel a class, bilinear at the start.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int):
        kernel = resize.bilinear_kernel(4)
        kernel = jnp.asarray(kernel[:, None] * kernel[None, :], jnp.float32)
        self.kernel = nnx.Param(jnp.tile(kernel[:, :, None, None], (1, 1, 1, num_classes)))

    def __call__(self, x: jax.Array, size: tuple[int, int], *, start: int) -> jax.Array:
        """[B, h, w, K] -> float32 [B, *size, K], the window of the (2h + 2) map from `start` on."""
        full = jax.lax.conv_general_dilated(
            x.astype(jnp.float32),
            self.kernel[...][::-1, ::-1],  # a transposed convolution runs its kernel mirrored
            window_strides=(1, 1),
            padding=((3, 3), (3, 3)),
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
            precision="highest",  # as `resize.apply`: scores are not rounded on accelerators
        )
        return full[:, start : start + size[0], start : start + size[1]]


def _resized(x: jax.Array, size: tuple[int, int], how: resize.Resize) -> jax.Array:
    rows, cols = how.matrix(x.shape[1], size[0]), how.matrix(x.shape[2], size[1])
    return resize.apply(x, rows, cols)
