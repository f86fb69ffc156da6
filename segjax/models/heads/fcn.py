"""The heads of FCN-32s, FCN-16s and FCN-8s.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, and
Shelhamer, Long, Darrell, PAMI 2017 with its released networks, whose crop offsets are used here.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from segjax.errors import InputError, choose
from segjax.models import resize
from segjax.models.deconvolution import LearnedUp2
from segjax.models.features import Features, Scores

UPSAMPLINGS = ("fixed", "learned")


class _SkipHead(nnx.Module):
    """Scores of the deepest stage, upsampled by 2 and added to the scores of each skip in turn.

    The last step to the image is always fixed and bilinear, as in the papers, and part of `Scores`.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        skips: tuple[str, ...],
        upsampling: str = "fixed",
        at_once: bool = False,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        choose("config.model.*.upsampling", upsampling, UPSAMPLINGS)

        def score(stage: str) -> nnx.Conv:
            # Zeros: the first prediction is uniform, and the skips come in gradually.
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

        self.top = list(channels)[-1]
        self.skips = skips
        self.at_once = at_once
        self.score_top = score(self.top)
        before = "top"
        for stage in skips:
            name = _SKIPS[stage].name
            setattr(self, f"score_{name}", score(stage))
            if upsampling == "learned":
                setattr(self, f"up_{before}", LearnedUp2(num_classes))
            before = name

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, h, w, K] at the stride of the last skip, or of the top."""
        del rngs  # no dropout
        caffe = features.border == "caffe"
        x, at, before = self.score_top(features.stages[self.top]), self.top, "top"
        for stage in self.skips:
            skip = _SKIPS[stage]
            scale = skip.at_once if self.at_once else 1.0
            scored = getattr(self, f"score_{skip.name}")(scale * features.stages[stage])
            if caffe:  # the skip is cropped to the upsampled map
                height, width = 2 * x.shape[1] + 2, 2 * x.shape[2] + 2
                first = skip.crop
                scored = scored[:, first : first + height, first : first + width]
                upsampling = resize.Resize("transposed", 2)
            else:  # poolings round up, so the upsampled map is cropped to the skip
                height, width = scored.shape[1:3]
                upsampling = features.upsampling(at, stage)
            if hasattr(self, f"up_{before}"):
                if np.any(upsampling.offset):
                    raise InputError(
                        'config.model.*.upsampling "learned" needs a backbone whose stages have '
                        'no shifts, such as vgg16; with this backbone it must be "fixed".'
                    )
                up = getattr(self, f"up_{before}")
                x = up(x, (height, width), start=0 if caffe else 1)
            else:
                x = resize.resized(x, (height, width), upsampling)
            x, at, before = x + scored.astype(jnp.float32), stage, skip.name
        if not caffe:
            return Scores(x, features.upsampling(at))
        stride = features.strides[at]
        return Scores(x, resize.Resize("transposed", stride, offset=_IMAGE_CROPS[stride]))


class _Skip(NamedTuple):
    """A fused stage: its name and its crop in the release, and its factor for `at_once`."""

    name: str
    crop: int
    at_once: float


_SKIPS = {"stage4": _Skip("pool4", 5, 0.01), "stage3": _Skip("pool3", 9, 0.0001)}
_IMAGE_CROPS = {32: 19, 16: 27, 8: 31}  # stride of the scores -> crop in the release


class FCN32s(_SkipHead):
    """FCN-32s: scores of the deepest stage alone.

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
        super().__init__(channels, num_classes, skips=(), dtype=dtype, rngs=rngs)


class FCN16s(_SkipHead):
    """FCN-16s: scores of the deepest stage, upsampled by 2, plus those of stage 4 (pool4).

    Args:
        channels: stage -> its channels in the backbone, the deepest last, with stage4.
        num_classes: number of classes, K.
        upsampling: form of the step by 2: "fixed", bilinear as a matrix product (PAMI), or
            "learned", a grouped transposed convolution that starts bilinear (CVPR).
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        upsampling: str = "fixed",
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            channels, num_classes, skips=("stage4",), upsampling=upsampling, dtype=dtype, rngs=rngs
        )


class FCN8s(_SkipHead):
    """FCN-8s: the sum of scores of the deepest stage, stage 4 (pool4) and stage 3 (pool3).

    Args:
        channels: stage -> its channels in the backbone, the deepest last, with stage3 and
            stage4.
        num_classes: number of classes, K.
        upsampling: form of the two steps by 2: "fixed", bilinear as a matrix product (PAMI), or
            "learned", a grouped transposed convolution that starts bilinear (CVPR).
        at_once: whether pool4 is multiplied by 0.01 and pool3 by 0.0001 before they are scored, for
            training in one stage (PAMI, section 4.3; the release's voc-fcn8s-atonce).
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        upsampling: str = "fixed",
        at_once: bool = False,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            channels,
            num_classes,
            skips=("stage4", "stage3"),
            upsampling=upsampling,
            at_once=at_once,
            dtype=dtype,
            rngs=rngs,
        )
