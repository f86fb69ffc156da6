"""RefineNet on ResNet-101 (Lin, Milan, Shen, Reid: RefineNet: Multi-Path Refinement Networks for
High-Resolution Semantic Segmentation, CVPR 2017).

Four blocks of RefineNet, chained pooling of four, as the released models have it (the paper says
two). Published: PASCAL VOC 2012 test 82.4 mIoU, with COCO and a CRF; Cityscapes test 73.6; ADE20K
val 40.2; the released VOC weights have 80.5 on val at one scale. Several scales:
`segjax.evaluate --protocol=refinenet_ms`.

`paper` on `voc2012`, `cityscapes` and `ade20k` is the release's training: one image a step,
enlarged by 1.2, scales 0.7 to 1.3, flips, crops of 400 (Cityscapes 600), rate 5e-4 and a tenth of
it for the backbone, whose statistics are frozen; the loss at the scores' places. The authors divide
the rate by ten when val stalls; here that is after 300,000 and after 600,000 steps. It starts from
ImageNet's weights: `--config.init.from=FILE`. `conv_first` is the later models' order in the chain,
`two` and `one` are the forms of two blocks and of one.

Elsewhere weights are drawn, norms are of the batch, and AdamW trains: on images of 96 x 128 on
`scenes`, crops of 224 x 288 on `camvid,small`, and without `small` on segjax's own schedule, not
measured at full size.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

_PAPER = {
    "model.backbone.norm": {"name": "frozen", "trains": True},
    "total_steps": 800_000,
    "batch_size": 1,
    "input_scale": 1.2,
    "augment.size": (400, 400),
    "augment.scale": (0.7, 1.3),
    "init.needs": "ImageNet's ResNet-101",
    "init.skip": ("head/*",),
    "loss.at": "scores",
    "optim.name": "sgd",
    "optim.lr": 5e-4,
    "optim.schedule": "step",
    "optim.decay": 0.1,
    "optim.step_every": 300_000,
    "optim.warmup_steps": 0,
    "optim.clip_norm": 0.0,
    "optim.weight_decay": 5e-4,
    "optim.parts": (("backbone/*", 0.1, 1.0),),
    "every_steps.eval": 20_000,
    "every_steps.checkpoint": 20_000,
}


WORDS = vocabulary.Vocabulary(
    {
        "conv_first": "the later models' order in the chain of poolings",
        "two": "two blocks of refinement",
        "one": "one block of refinement",
    },
    paper=("voc2012", "cityscapes", "ade20k"),
    exclusive=(("two", "one"),),
)


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    config = default.get_config()
    config.model = {
        "backbone": {
            "name": "resnet",
            "depth": 101,
            "norm": {"name": "batch"},
            "stem": "7x7",
            "stride_in": "3x3",
            "width": 64,
        },
        "head": {"name": "refinenet", "width": 256, "cascades": 4, "blocks": 4}
        | {"chain": "pool_first", "dropout": 0.5},
        "aux": None,
    }
    default.from_scratch(config)
    return vocabulary.apply(
        config,
        WORDS.read(words),
        small={"camvid": default.CAMVID_SMALL | {"input_scale": 1.0, "augment.size": (224, 288)}},
        paper={
            "voc2012": _PAPER,
            "cityscapes": _PAPER | {"augment.size": (600, 600)},
            "ade20k": _PAPER,
        },
        own={
            "conv_first": {"model.head.chain": "conv_first"},
            "two": {"model.head.cascades": 2},
            "one": {"model.head.cascades": 1},
        },
        smoke={
            "model.backbone.width": 4,
            "model.head.width": 8,
            "optim.warmup_steps": 0,
        },
    )
