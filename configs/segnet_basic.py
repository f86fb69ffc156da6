"""SegNet-Basic (Badrinarayanan, Kendall, Cipolla: SegNet: A Deep Convolutional Encoder-Decoder
Architecture for Image Segmentation, PAMI 2017), and the decoders of its table 1.

Four encoders of 7 x 7, 64 channels, and four decoders that unpool to where the encoders chose.
Published on CamVid test, trained on 367 images at 360 x 480, weights by median frequency (global
and class accuracy, mIoU, boundary F1): 82.7, 62.0, 47.7, 35.78. The words `fcn_basic` (81.7, 62.4,
47.3, 38.11) and `bilinear` (77.9, 61.1, 43.3, 20.83) put those decoders in its place, and
`single_channel` convolves each channel by itself.

`camvid,paper` is the tutorial's training: whole images at 360 x 480, batch 4, SGD of rate 0.1 and
momentum 0.9 without a schedule, 10,000 steps, no augmentation; statistics of the norms are then
estimated again over the training set: `python -m segjax.evaluate --workdir=DIR --statistics=train`.

Elsewhere AdamW trains: in few steps on images of 96 x 128 on `scenes`, of half size on
`camvid,small`; without `small` on segjax's own schedule, not measured at full size.
"""

from typing import Any

from segjax.configs import default
from segjax.configuration import vocabulary

DEPTHS, WIDTHS = (1, 1, 1, 1), (64, 64, 64, 64)
# Raw blue, green and red; what the mean would do, the norms and the local norm do.
PREPROCESS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "bgr": True}
NORM = {"name": "batch", "epsilon": 1e-9}
# The release's training; the bias of a convolution learns twice as fast, and no bias decays.
PAPER = {
    "batch_size": 4,
    "input_scale": 1.0,
    "augment.size": (360, 480),
    "augment.scale": (1.0, 1.0),
    "augment.flip": 0.0,
    "augment.brightness": 0.0,
    "augment.contrast": 0.0,
    "augment.saturation": 0.0,
    "loader.cache": True,
    "loss.class_weights": "median_frequency",
    "optim.name": "sgd",
    "optim.lr": 0.1,
    "optim.schedule": "constant",
    "optim.warmup_steps": 0,
    "optim.clip_norm": 0.0,
    "optim.momentum": 0.9,
    "optim.weight_decay": 5e-4,
    "optim.parts": (("*/conv/bias", 2.0, 0.0), ("*/norm/bias", 1.0, 0.0)),
    "total_steps": 10_000,
    "every_steps.eval": 1000,
    "every_steps.checkpoint": 1000,
}


_OWN: dict[str, dict[str, Any]] = {
    "single_channel": {"model.head.single_channel": True},
    "fcn_basic": {"model.head": {"name": "fcn_basic"}},
    "bilinear": {"model.head": {"name": "bilinear"}},
}
WORDS = vocabulary.Vocabulary(
    {
        "single_channel": "convolves each channel by itself",
        "fcn_basic": "the decoder FCN-Basic in its place",
        "bilinear": "a bilinear decoder in its place",
    },
    paper=("camvid",),
    exclusive=(tuple(_OWN),),
)


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return recipe(WORDS.read(words))


def recipe(words: vocabulary.Words, dropped: tuple[str, ...] = ()):
    """Basic's, with dropout of 0.5 behind these stages of both sides."""
    dropout = {"dropout": 0.5, "dropped": dropped} if dropped else {}
    config = default.get_config()
    shared = {"depths": DEPTHS, "kernel": 7, "norm": NORM}
    config.model = {
        "backbone": {"name": "segnet_encoder", "widths": WIDTHS, "local_norm": True}
        | shared
        | dropout,
        "head": {"name": "segnet", "activation": False, "classifier": 1, "single_channel": False}
        | shared
        | dropout,
        "aux": None,
    }
    config.preprocess = PREPROCESS
    default.from_scratch(config)
    return vocabulary.apply(
        config,
        words,
        paper={"camvid": PAPER},
        own=_OWN,
        smoke={"model.backbone.widths": (6, 6, 6, 6), "optim.warmup_steps": 0},
    )
