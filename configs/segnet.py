"""SegNet (Badrinarayanan, Kendall, Cipolla: SegNet: A Deep Convolutional Encoder-Decoder
Architecture for Image Segmentation, PAMI 2017).

VGG-16's 13 convolutions, and as many that mirror them behind unpoolings to where the encoder's
poolings chose; a batch norm and a ReLU follow each but the last. Published on CamVid test with 3433
training images of several sets: 90.40 global and 71.20 class accuracy, 60.10 mIoU, 46.84 boundary
F1; with CamVid's 367 alone an earlier version of the paper has 50.2 mIoU.

`camvid,paper` is the tutorial's training: whole images at 360 x 480, batch 4, SGD of rate 0.001 and
momentum 0.9 without a schedule, 40,000 steps, weights by median frequency, no augmentation, the
encoder from VGG-16: `--config.init.from=FILE`. Statistics of the norms are then estimated again
over the training set: `python -m segjax.evaluate --workdir=DIR --statistics=train`.

Elsewhere AdamW trains: in few steps on half the width on `scenes` (images of 96 x 128) and under
`small` (`camvid,small`: of half size); without `small` at full width on segjax's own schedule, not
measured at full size.
"""

from segjax.configs import default, segnet_basic
from segjax.configuration import vocabulary

DEPTHS, WIDTHS = (2, 2, 3, 3, 3), (64, 128, 256, 512, 512)


WORDS = vocabulary.Vocabulary(paper=("camvid",))


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return recipe(WORDS.read(words))


def recipe(words: vocabulary.Words, dropped: tuple[str, ...] = (), paper_steps: int = 40_000):
    """SegNet's, with dropout of 0.5 behind these stages of both sides."""
    dropout = {"dropout": 0.5, "dropped": dropped} if dropped else {}
    shared = {"depths": DEPTHS, "kernel": 3, "norm": segnet_basic.NORM} | dropout
    half = tuple(width // 2 for width in WIDTHS)
    config = default.get_config()
    config.model = {
        "backbone": {"name": "segnet_encoder", "widths": half} | shared,
        "head": {"name": "segnet", "classifier": 3} | shared,
        "aux": None,
    }
    config.preprocess = segnet_basic.PREPROCESS
    default.from_scratch(config)
    paper = {
        "model.backbone.widths": WIDTHS,
        "init.needs": "ImageNet's VGG-16",
        "init.skip": ("*/norm/*", "head/*", "backbone/fc*"),
        "optim.lr": 1e-3,
        "total_steps": paper_steps,
        "every_steps.eval": 2000,
        "every_steps.checkpoint": 2000,
    }
    return vocabulary.apply(
        config,
        words,
        full={"model.backbone.widths": WIDTHS},
        paper={"camvid": segnet_basic.PAPER | paper},
        smoke={"model.backbone.widths": (4, 6, 8, 8, 8), "optim.warmup_steps": 0},
    )
