"""The decoders of SegNet and SegNet-Basic.

Badrinarayanan, Kendall, Cipolla, PAMI 2017, section 3, and their release (SegNet-Tutorial).
"""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from segjax.errors import InputError, choose
from segjax.models import layers, unpooling
from segjax.models.features import Features, Scores
from segjax.models.resize import Resize


class SegNet(nnx.Module):
    """Unpooling to where the encoder's poolings chose, and convolutions, to the image's pixels.

    Args:
        channels: of the backbone's stages, which must keep selections.
        num_classes: K.
        depths: convolutions of each stage, as the encoder's.
        kernel: k, of all convolutions.
        norm: see `norms.make`.
        use_bias: of the convolutions, beside the norm, as the release has it.
        activation: whether a ReLU follows the norms; Basic has none.
        classifier: side of the last convolution: 3, which is stage 1's last, or 1, after it.
        single_channel: every channel is convolved by itself, which keeps the encoder's widths; the
            paper's SegNet-Basic-SingleChannelDecoder.
        dropout: rate behind the stages of `dropped`, for Bayesian SegNet; of single numbers.
        dropped: stages, by the encoder's names.
        dtype: type of the computation; parameters stay float32.
        rngs: supplies the initialisation keys.
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
        dtype=None,
        rngs: nnx.Rngs,
    ):
        if len(depths) != len(channels):
            raise InputError(
                f"config.model.head.depths: {len(depths)} stages; the backbone has {len(channels)}."
            )
        self.stages = tuple(channels)
        if single_channel and len(set(channels.values())) > 1:
            raise InputError("config.model.head.single_channel needs stages of one width.")
        for stage in dropped:
            choose("config.model.head.dropped", stage, channels)
        options = {"kernel": kernel, "norm": norm, "use_bias": use_bias, "dtype": dtype}
        options |= {"activation": nnx.relu if activation else None, "rngs": rngs}
        options |= {"depthwise": single_channel}
        before = [channels[self.stages[0]], *channels.values()]
        for stage, depth, finer in zip(self.stages, depths, before, strict=False):
            width = channels[stage]
            # The last convolution of a stage comes to the channels of the finer one.
            wide = [width] * (depth - 1) + [finer]
            if stage == self.stages[0] and classifier == kernel:
                wide = wide[:-1]  # the classifier is stage 1's last convolution
            blocks = [layers.ConvBlock(width, features, **options) for features in wide]
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
        """Features -> Scores [B, H, W, K]."""
        if not features.pool_selections:
            raise InputError("config.model.head: segnet needs segnet_encoder, which keeps choices.")
        x = features.stages[self.stages[-1]]
        for stage in reversed(self.stages):
            x = unpooling.unpool(x, features.pool_selections[stage])
            for block in getattr(self, stage):
                x = block(x)
            if stage in self.dropped:
                x = self.dropout(x, rngs=rngs)
        return Scores(self.score(x), Resize("half_pixel", 1))
