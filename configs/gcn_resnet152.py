"""The Global Convolutional Network on ResNet-152 (Peng, Zhang, Yu, Luo, Sun: Large Kernel Matters -
Improve Semantic Segmentation by Global Convolutional Network, CVPR 2017).

Kernels of 15 x 15 as lines on four stages, boundary refinement. Published on PASCAL VOC 2012 val,
with COCO: 80.3 mIoU at one scale, 81.0 with several and a CRF; test 82.2; Cityscapes val 76.9 with
kernels of 25.

`voc2012,paper` is the training of the paper's last stages: whole images filled up to 512 x 512, one
a step, SGD of momentum 0.99, flips alone, norms frozen. `cityscapes,paper` takes crops of 800 and
kernels of 25; its number is of windows of 1024: `--protocol="single, tile=(1024, 1024),
stride=1.0"`. The paper does not say the rate: ours, 1e-4 and poly, has not been tried at full size.
They start from ImageNet's weights: `--config.init.from=FILE`. `learned` upsamples by
deconvolutions, as the paper draws them; `resnet_gcn` is the backbone of section 4.1.3, lines of 7
in place of bottlenecks.

Elsewhere weights are drawn, norms are of the batch, and AdamW trains: on images of 96 x 128 on
`scenes`, crops of 224 x 288 on `camvid,small`, and without `small` on segjax's own schedule, not
measured at full size.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

_PAPER = {
    "model.backbone.norm": {"name": "frozen"},
    "total_steps": 200_000,
    "batch_size": 1,
    "augment.size": (512, 512),
    "augment.scale": (1.0, 1.0),
    "init.needs": "ImageNet's ResNet",
    "init.skip": ("head/*",),
    "optim.name": "sgd",
    "optim.lr": 1e-4,
    "optim.schedule": "poly",
    "optim.warmup_steps": 0,
    "optim.clip_norm": 0.0,
    "optim.momentum": 0.99,
    "optim.weight_decay": 5e-4,
    "optim.parts": (),
    "every_steps.eval": 10_000,
    "every_steps.checkpoint": 10_000,
}


WORDS = vocabulary.Vocabulary(
    {
        "learned": "upsamples by deconvolutions",
        "resnet_gcn": "the backbone of section 4.1.3, lines of 7 in place of bottlenecks",
    },
    paper=("voc2012", "cityscapes"),
)


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return recipe(152, WORDS.read(words))


def recipe(depth: int, words: vocabulary.Words):
    """The family's, by depth."""
    config = default.get_config()
    config.model = {
        "backbone": {
            "name": "resnet",
            "depth": depth,
            "norm": {"name": "batch"},
            "stem": "7x7",
            "stride_in": "3x3",
            "width": 64,
            "global_taps": 0,
        },
        "head": {"name": "gcn", "taps": 15, "use_bias": False, "upsampling": "bilinear"},
        "aux": None,
    }
    default.from_scratch(config)
    return vocabulary.apply(
        config,
        words,
        small={"camvid": default.CAMVID_SMALL | {"input_scale": 1.0, "augment.size": (224, 288)}},
        paper={
            "voc2012": _PAPER | {"train_split": "trainaug"},
            "cityscapes": _PAPER | {"augment.size": (800, 800), "model.head.taps": 25},
        },
        own={
            "learned": {"model.head.upsampling": "learned"},
            "resnet_gcn": {"model.backbone.global_taps": 7},
        },
        smoke={"model.backbone.width": 4, "model.head.taps": 5, "optim.warmup_steps": 0},
    )
