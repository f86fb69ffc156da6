"""VGG-16 dilated to an output stride of 8, with a large field of view.

Chen, Papandreou, Kokkinos, Murphy, Yuille: Semantic Image Segmentation with Deep Convolutional Nets
and Fully Connected CRFs, ICLR 2015 (v1, section 3 and table 2), and DeepLab, PAMI 2018 (v2, section
3.2: atrous spatial pyramid pooling), as their Caffe releases build it.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from segjax.errors import InputError
from segjax.models import layers, norms, pooling, remat
from segjax.models.backbones.vgg import DEPTHS, STAGES
from segjax.models.features import Features

_NO_NORM = {"name": "none"}
_STRIDES = (2, 4, 8, 8, 8)  # of stages 1 to 5: the last two poolings have stride 1


class VGG16Atrous(nnx.Module):
    """VGG-16 of output stride 8: 13 convolutions, the last three dilated, fc6 and fc7 per rate.

    All poolings are 3 x 3 and round up. Stage "image" is the input.

    Args:
        rates: dilations of fc6. LargeFOV of v1 has one, 12. Pyramids of v2 have an fc6 and an fc7
            for each of four rates: 6, 12, 18, 24 (ASPP-L) or 2, 4, 8, 12 (ASPP-S). With several
            rates the stages are "fc7_6" and so on, else "fc7".
        fc_kernel: side of fc6's kernel: 3 in LargeFOV, 4 and 7 elsewhere in v1's table 2.
        fc_width: channels of fc6 and fc7: 1024, in v1's table 2 also 4096.
        average: whether a mean over 3 x 3 precedes fc6 (pool5a of LargeFOV).
        width: channels of stage 1; the paper's 64 gives 64, 128, 256, 512, 512.
        dropout: rate after fc6 and fc7.
        norm: follows every convolution, fc6 and fc7 included, and replaces their biases: see
            `norms.make`. The papers have none; from scratch the network hardly trains without one.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.

    Raises:
        InputError: if a rate is not allowed with the kernel.
    """

    def __init__(
        self,
        *,
        rates: tuple[int, ...],
        fc_kernel: int,
        fc_width: int,
        average: bool,
        width: int,
        dropout: float,
        norm: Mapping[str, Any] = _NO_NORM,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        if not rates or min(rates) < 1 or any(rate * (fc_kernel - 1) % 2 for rate in rates):
            raise InputError(
                "config.model.backbone.rates must be whole numbers, 1 or more, and even if "
                f"fc_kernel is even; got {rates} with fc_kernel={fc_kernel}."
            )
        options: layers.Options = {"dtype": dtype, "rngs": rngs}
        features, self.channels = 3, {"image": 3}
        for stage, depth, scale in zip(STAGES, DEPTHS, (1, 2, 4, 8, 8), strict=True):
            blocks = []
            for _ in range(depth):
                block = layers.ConvBlock(
                    features,
                    scale * width,
                    kernel=3,
                    dilation=2 if stage == "stage5" else 1,
                    norm=norm,
                    **options,
                )
                blocks.append(block)
                features = scale * width
            setattr(self, stage, nnx.List(blocks))
            self.channels[stage] = features
        self.average = average
        self.fc_stages = [f"fc7_{rate}" if len(rates) > 1 else "fc7" for rate in rates]
        plain = norm["name"] == "none"
        if not plain:
            self.norm6, self.norm7 = (
                nnx.List(norms.make(norm, fc_width, **options) for _ in rates) for _ in range(2)
            )
        self.fc6 = nnx.List(
            layers.Conv(
                features,
                fc_width,
                kernel=fc_kernel,
                padding=rate * (fc_kernel - 1) // 2,
                dilation=rate,
                use_bias=plain,
                **options,
            )
            for rate in rates
        )
        self.fc7 = nnx.List(
            layers.Conv(fc_width, fc_width, kernel=1, padding=0, use_bias=plain, **options)
            for _ in rates
        )
        self.dropout = nnx.Dropout(dropout)
        self.channels |= dict.fromkeys(self.fc_stages, fc_width)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> Features:
        """[B, H, W, 3] -> Features with the image, stage1 to stage5 and fc7; any H, W >= 1."""
        stages, strides = {"image": x}, {"image": 1}
        for stage, stride in zip(STAGES, _STRIDES, strict=True):
            for block in getattr(self, stage):
                x = block(x)
            pool_stride = 2 if stride > max(strides.values()) else 1
            x = remat.block(pooling.max_pool(x, window=3, stride=pool_stride, padding=1))
            stages[stage] = x
            strides[stage] = stride
        if self.average:
            x = pooling.average_pool_3x3(x)
        for i, stage in enumerate(self.fc_stages):
            y = x
            for layer, norm in ((self.fc6, "norm6"), (self.fc7, "norm7")):
                y = layer[i](y)
                bare = not hasattr(self, norm)
                y = layers.relu(y) if bare else getattr(self, norm)[i](y, relu=True)
                y = self.dropout(y, rngs=rngs)
            stages[stage], strides[stage] = y, strides["stage5"]
        # The first feature is centred on pixel 0, not on the centre of its block.
        shifts = {stage: ((1 - stride) / 2,) * 2 for stage, stride in strides.items()}
        return Features(stages, strides, shifts=shifts)
