"""The decoders of SegNet and SegNet-Basic.

Badrinarayanan, Kendall, Cipolla, PAMI 2017, section 3, and their release (SegNet-Tutorial).
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from segjax.errors import InputError, choose
from segjax.models import layers, unpooling
from segjax.models.features import Features, Scores
from segjax.models.resize import Resize


class SegNet(nnx.Module):
    """Decoder of SegNet: for each stage, unpooling to the encoder's places and convolutions.

    Args:
        channels: stage -> its channels in the backbone, whose poolings must keep selections.
        num_classes: number of classes, K.
        depths: convolutions of each stage, as in the encoder.
        kernel: side of all kernels.
        norm: see `norms.make`.
        use_bias: whether convolutions have a bias beside the norm, as in the release.
        activation: whether a ReLU follows the norms; Basic has none.
        classifier: side of the kernel of the scores: equal to `kernel`, they are the last
            convolution of stage 1; else, as 1 in Basic, they follow it.
        single_channel: whether every channel is convolved by itself, which keeps the widths of the
            encoder: SegNet-Basic-SingleChannelDecoder of the paper.
        dropout: rate of dropout on single numbers after the stages of `dropped`, for Bayesian
            SegNet.
        dropped: names of stages.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.

    Raises:
        InputError: if the options do not fit the backbone.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        *,
        depths: tuple[int, ...],
        kernel: int,
        norm: Mapping[str, Any],
        use_bias: bool = True,
        activation: bool = True,
        classifier: int = 3,
        single_channel: bool = False,
        dropout: float = 0.0,
        dropped: tuple[str, ...] = (),
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        if len(depths) != len(channels):
            raise InputError(
                "config.model.*.depths must have a number for each of the backbone's "
                f"{len(channels)} stages, got {len(depths)}."
            )
        self.stages = tuple(channels)
        if single_channel and len(set(channels.values())) > 1:
            raise InputError(
                "config.model.*.single_channel needs backbone stages of one width, got "
                f"{', '.join(map(str, channels.values()))}."
            )
        for stage in dropped:
            choose("config.model.*.dropped", stage, channels)
        block = functools.partial(
            layers.ConvBlock,
            kernel=kernel,
            norm=norm,
            use_bias=use_bias,
            depthwise=single_channel,
            activation=layers.relu if activation else None,
            dtype=dtype,
            rngs=rngs,
        )
        before = [channels[self.stages[0]], *channels.values()]
        for stage, depth, finer in zip(self.stages, depths, before, strict=False):
            width = channels[stage]
            # The last convolution of a stage has the channels of the next finer stage.
            wide = [width] * (depth - 1) + [finer]
            if stage == self.stages[0] and classifier == kernel:
                wide = wide[:-1]  # the classifier is stage 1's last convolution
            blocks = [block(width, features) for features in wide]
            setattr(self, stage, nnx.List(blocks))
        self.score = layers.Conv(
            channels[self.stages[0]],
            num_classes,
            kernel=classifier,
            padding=classifier // 2,
            use_bias=True,
            dtype=dtype,
            rngs=rngs,
        )
        self.dropout, self.dropped = nnx.Dropout(dropout), tuple(dropped)

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores [B, H, W, K] on the image's pixels.

        Raises:
            InputError: if the backbone keeps no selections.
        """
        if not features.pool_selections:
            raise InputError(
                "config.model.*: segnet needs a backbone that keeps the places of its maxima: "
                "segnet_encoder."
            )
        x = features.stages[self.stages[-1]]
        for stage in reversed(self.stages):
            x = unpooling.unpool(x, features.pool_selections[stage])
            for block in getattr(self, stage):
                x = block(x)
            if stage in self.dropped:
                x = self.dropout(x, rngs=rngs)
        return Scores(self.score(x), Resize("half_pixel", 1))
