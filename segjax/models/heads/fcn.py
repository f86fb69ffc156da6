"""The heads of FCN-32s, FCN-16s and FCN-8s.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, and
Shelhamer, Long, Darrell, PAMI 2017 with its released networks, whose crop offsets stand below.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from segjax.errors import InputError, choose
from segjax.models import resize
from segjax.models.deconvolution import LearnedUp2
from segjax.models.features import Features, Scores

UPSAMPLINGS = ("fixed", "learned")


class _SkipHead(nnx.Module):
    """Scores of the deepest stage, brought up by 2 and summed with those of each skip in turn.

    The last step to the image is always fixed bilinear, as in the papers; it is part of `Scores`.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        skips: tuple[str, ...],
        upsampling: str = "fixed",
        at_once: bool = False,
        dtype=None,
        rngs: nnx.Rngs,
    ):
        choose("config.model.head.upsampling", upsampling, UPSAMPLINGS)

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
        del rngs  # no dropout of its own
        caffe = features.border == "caffe"
        x, at, before = self.score_top(features.stages[self.top]), self.top, "top"
        for stage in self.skips:
            skip = _SKIPS[stage]
            scale = skip.at_once if self.at_once else 1.0
            scored = getattr(self, f"score_{skip.name}")(scale * features.stages[stage])
            if caffe:  # the upsampled map has its own size, the skip is cropped to it
                height, width = 2 * x.shape[1] + 2, 2 * x.shape[2] + 2
                first = skip.crop
                scored = scored[:, first : first + height, first : first + width]
                how = resize.Resize("transposed", 2)
            else:  # a map that was rounded up covers more than the skip: it is cropped
                height, width = scored.shape[1:3]
                how = features.upsampling(at, stage)
            if hasattr(self, f"up_{before}"):
                if np.any(how.offset):
                    raise InputError(
                        "config.model.head: learned upsampling needs a backbone whose stages lie "
                        'one block under another, such as vgg16; this one takes "fixed".'
                    )
                up = getattr(self, f"up_{before}")
                x = up(x, (height, width), start=0 if caffe else 1)
            else:
                x = resize.resized(x, (height, width), how)
            x, at, before = x + scored.astype(jnp.float32), stage, skip.name
        if not caffe:
            return Scores(x, features.upsampling(at))
        stride = features.strides[at]
        return Scores(x, resize.Resize("transposed", stride, offset=_IMAGE_CROPS[stride]))


class _Skip(NamedTuple):
    """A stage that is fused: its name in the release, its crop there, its factor at once."""

    name: str
    crop: int
    at_once: float


_SKIPS = {"stage4": _Skip("pool4", 5, 0.01), "stage3": _Skip("pool3", 9, 0.0001)}
_IMAGE_CROPS = {32: 19, 16: 27, 8: 31}  # by the stride of the scores


class FCN32s(_SkipHead):
    """Scores of the deepest stage alone.

    Args:
        channels: of the backbone's stages, the deepest last.
        num_classes: K.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self, channels: Mapping[str, int], num_classes: int, *, dtype=None, rngs: nnx.Rngs
    ):
        super().__init__(channels, num_classes, skips=(), dtype=dtype, rngs=rngs)


class FCN16s(_SkipHead):
    """Scores of the deepest stage, brought up by 2, and of stage 4 (pool4).

    Args:
        channels: of the backbone's stages, the deepest last; stage4 is used.
        num_classes: K.
        upsampling: of the 2x step: "fixed" bilinear as a matrix product (PAMI) or "learned", a
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
        super().__init__(
            channels, num_classes, skips=("stage4",), upsampling=upsampling, dtype=dtype, rngs=rngs
        )


class FCN8s(_SkipHead):
    """Scores of the deepest stage, of stage 4 (pool4) and of stage 3 (pool3).

    Args:
        channels: of the backbone's stages, the deepest last; stage3 and stage4 are used.
        num_classes: K.
        upsampling: of the two 2x steps: "fixed" bilinear as a matrix product (PAMI) or "learned", a
            grouped transposed convolution that starts bilinear (CVPR).
        at_once: pool4 is multiplied by 0.01 and pool3 by 0.0001 before they are scored (PAMI,
            section 4.3; the release's voc-fcn8s-atonce), which conditions training in one stage.
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
        dtype=None,
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
