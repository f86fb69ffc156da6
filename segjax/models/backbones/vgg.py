"""VGG-16 as a fully convolutional backbone.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015
(configuration D); Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic
Segmentation, 2015 (fc6 and fc7 as convolutions, the border of 100).
"""

import jax
from flax import nnx

from segjax.errors import choose
from segjax.models import layers, norms, pooling, remat
from segjax.models.features import Features

STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5")
DEPTHS = (2, 2, 3, 3, 3)  # convolutions of each stage
BORDERS = ("same", "caffe")


class VGG16(nnx.Module):
    """VGG-16: 13 convolutions, five poolings, and fc6 and fc7 as convolutions.

    Args:
        batch_norm: whether a batch norm follows every 3 x 3 convolution, as in torchvision's
            vgg16_bn; these convolutions then have no bias.
        width: channels of stage 1; the paper's 64 gives 64, 128, 256, 512, 512.
        fc_width: channels of fc6 and fc7; 4096 in the paper.
        border: "same" pads fc6 by 3, so that every stage covers exactly the image; "caffe" pads the
            image by 100 and fc6 by nothing, as the FCN release does.
        dropout: rate after fc6 and fc7.
        fc_batch_norm: whether fc6 and fc7 have a batch norm instead of a bias; None: as
            `batch_norm` says. torchvision's vgg16_bn has False; from scratch, fc6 and fc7 train
            only with a norm.
        pool_rounding: "ceil": an odd last row or column is pooled alone, as in Caffe; "floor": it
            is dropped, as in PyTorch and Keras.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.

    Raises:
        InputError: if the border or the rounding is unknown.
    """

    def __init__(
        self,
        *,
        batch_norm: bool,
        width: int,
        fc_width: int,
        border: str,
        dropout: float,
        fc_batch_norm: bool | None = None,
        pool_rounding: str = "ceil",
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        fc_batch_norm = batch_norm if fc_batch_norm is None else fc_batch_norm
        options: layers.Options = {"dtype": dtype, "rngs": rngs}
        choose("config.model.backbone.border", border, BORDERS)
        choose("config.model.backbone.pool_rounding", pool_rounding, pooling.ROUNDINGS)
        self.border = border
        self.drop_odd = pool_rounding == "floor"
        features_in, self.channels = 3, {}
        for stage, depth, scale in zip(STAGES, DEPTHS, (1, 2, 4, 8, 8), strict=True):
            blocks = []
            for _ in range(depth):
                first = features_in == 3
                padding = 100 if first and border == "caffe" else 1
                block = layers.ConvBlock(
                    features_in,
                    scale * width,
                    kernel=3,
                    padding=padding,
                    norm={"name": "batch" if batch_norm else "none"},
                    **options,
                )
                blocks.append(block)
                features_in = scale * width
            setattr(self, stage, nnx.List(blocks))
            self.channels[stage] = features_in
        self.fc6 = layers.Conv(
            features_in,
            fc_width,
            kernel=7,
            padding=0 if border == "caffe" else 3,
            use_bias=not fc_batch_norm,
            **options,
        )
        self.fc7 = layers.Conv(
            fc_width, fc_width, kernel=1, padding=0, use_bias=not fc_batch_norm, **options
        )
        if fc_batch_norm:
            self.norm6 = norms.make({"name": "batch"}, fc_width, **options)
            self.norm7 = norms.make({"name": "batch"}, fc_width, **options)
        self.dropout = nnx.Dropout(dropout)
        self.channels["fc7"] = fc_width

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> Features:
        """[B, H, W, 3] -> Features with stage1 to stage5 and fc7; any H, W >= 1."""
        stages, strides = {}, {}
        for i, stage in enumerate(STAGES):
            for block in getattr(self, stage):
                x = block(x)
            x = remat.block(layers.max_pool_2x2(_even(x) if self.drop_odd else x))
            stages[stage], strides[stage] = x, 2 ** (i + 1)
        for conv, norm in ((self.fc6, "norm6"), (self.fc7, "norm7")):
            x = conv(x)
            x = getattr(self, norm)(x, relu=True) if hasattr(self, norm) else layers.relu(x)
            x = self.dropout(x, rngs=rngs)
        stages["fc7"], strides["fc7"] = x, 32
        return Features(stages, strides, border=self.border)


def _even(x: jax.Array) -> jax.Array:
    """[B, H, W, C] without its odd last row and column; the only one stays."""
    height, width = (max(side - side % 2, 1) for side in x.shape[1:3])
    return x[:, :height, :width]
