"""DeepLab v3 on ResNet-101 (Chen, Papandreou, Schroff, Adam: Rethinking Atrous Convolution for
Semantic Image Segmentation, 2017).

Output stride 16, multi-grid (1, 2, 4), ASPP of rates 6, 12 and 18 with image features. Published on
PASCAL VOC 2012 val, ImageNet weights: 77.21 mIoU at one scale; 78.51 evaluated at output stride 8,
79.77 with six scales and flips (`segjax.evaluate --protocol="deeplab_v3_ms_flip, bucket=513"`).
Cityscapes val: 77.23 and 79.30, of scales 0.75, 1 and 1.25.

`voc2012,paper` is the paper's training: `train_split` trainaug, batch 16, 30,000 steps, rate 0.007,
poly, crops of 513, batch norm of momentum 0.9997; `cityscapes,paper` 90,000 steps, crops of 769.
They start from ImageNet's weights: `--config.init.from=FILE`. `frozen` is the second stage (rate
0.001, norms frozen, output stride 8, from a first run: `--config.init.from=runs/...`), `cascade`
the paper's other form, three copies of the last stage and no pyramid (published: 76.66).

Elsewhere weights are drawn, AdamW trains, and norms move by a tenth: on images of 96 x 128 on
`scenes`, crops of 224 x 288 on `camvid,small`, and without `small` on segjax's own schedule, not
measured at full size.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

_PAPER = {
    "model.backbone.norm.momentum": 0.9997,
    "model.head.norm.momentum": 0.9997,
    "total_steps": 30_000,
    "batch_size": 16,
    "augment.size": (513, 513),
    "augment.scale": (0.5, 2.0),
    "init.needs": "ImageNet's ResNet",
    "init.skip": ("head/*",),
    "optim.name": "sgd",
    "optim.lr": 0.007,
    "optim.schedule": "poly",
    "optim.warmup_steps": 0,
    "optim.clip_norm": 0.0,
    "optim.weight_decay": 1e-4,
    "optim.parts": (),
    "every_steps.eval": 2500,
    "every_steps.checkpoint": 2500,
}
_FROZEN = {
    "model.backbone.norm": {"name": "frozen"},
    "model.backbone.output_stride": 8,
    "model.head.norm": {"name": "frozen"},
    "model.head.rates": (12, 24, 36),
    "optim.lr": 0.001,
}
_FROM_FIRST_STAGE = {
    "init.needs": "the run of its first stage, that of the same words without `frozen`",
    "init.skip": (),
    "init.differs": ("model.backbone.output_stride", "model.head.rates"),
}
_CASCADE = {
    "model.backbone.multi_grid": (1, 2, 1),
    "model.backbone.cascade": 3,
    "model.head": {"name": "classifier"},
}


FROZEN = {"frozen": "the second stage: norms frozen, output stride 8"}
WORDS = vocabulary.Vocabulary(
    FROZEN | {"cascade": "three copies of the last stage in place of the pyramid"},
    paper=("voc2012", "cityscapes"),
)


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return recipe(101, WORDS.read(words))


def recipe(depth: int, words: vocabulary.Words, head: dict | None = None):
    """The family's, by depth; `head` is added to the head's options."""
    config = default.get_config()
    config.model = {
        "backbone": {
            "name": "resnet",
            "depth": depth,
            "norm": {"name": "batch", "momentum": 0.9},
            "stem": "7x7",
            "stride_in": "3x3",
            "output_stride": 16,
            "multi_grid": (1, 2, 4),
            "cascade": 0,
            "width": 64,
        },
        "head": {
            "name": "deeplab_v3",
            "rates": (6, 12, 18),
            "norm": {"name": "batch", "momentum": 0.9},
            "width": 256,
            "dropout": 0.1,
        }
        | (head or {}),
        "aux": None,
    }
    default.from_scratch(config)
    frozen = _FROZEN | (_FROM_FIRST_STAGE if words.size == "paper" else {})
    smoke = {"model.backbone.width": 4, "optim.warmup_steps": 0}
    if "cascade" not in words:
        smoke["model.head.width"] = 8
    return vocabulary.apply(
        config,
        words,
        small={"camvid": default.CAMVID_SMALL | {"input_scale": 1.0, "augment.size": (224, 288)}},
        paper={
            "voc2012": _PAPER | {"train_split": "trainaug"},
            "cityscapes": _PAPER | {"total_steps": 90_000, "augment.size": (769, 769)},
        },
        own={"frozen": frozen, "cascade": _CASCADE},
        smoke=smoke,
    )
