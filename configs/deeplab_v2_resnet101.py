"""DeepLab v2 on ResNet-101, three scales (Chen, Papandreou, Kokkinos, Murphy, Yuille: DeepLab, PAMI
2018).

He et al.'s ResNet (strides in the 1 x 1), output stride 8, four 3 x 3 convolutions to the classes
at rates 6, 12, 18 and 24, summed; the image at 1, 0.75 and 0.5, maximum of the scores; the loss of
every scale and of the maximum. Published on PASCAL VOC 2012 val with weights from MS-COCO: 76.35
mIoU before the CRF, 77.69 after it; from ImageNet with three scales 71.27.

`voc2012,paper` is the paper's training: batch 10 in parts of one, 20,000 steps, poly, norms frozen.
It starts from weights: `--config.init.from=FILE`. `cityscapes,paper` trains alike (the paper's 70.4
is of overlapping tiles, without the three scales). Elsewhere weights are drawn and norms trained:
on images of 96 x 128 on `scenes`, of half size on `camvid,small`, and without `small` on segjax's
own schedule, not measured at full size. The CRF: as in configs/deeplab_v1_largefov.py.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

_PAPER = {
    "model.backbone.norm": {"name": "frozen"},
    "total_steps": 20_000,
    "batch_size": 10,
    "accumulate": 10,
    "augment.size": (321, 321),
    "augment.scale": (0.5, 1.5),
    "preprocess.mean": (122.675, 116.669, 104.008),
    "preprocess.std": (1.0, 1.0, 1.0),
    "preprocess.bgr": True,
    "init.needs": "MS-COCO's or ImageNet's ResNet-101",
    "init.skip": ("head/*",),
    "optim.name": "sgd",
    "optim.lr": 2.5e-4,
    "optim.schedule": "poly",
    "optim.power": 0.9,
    "optim.warmup_steps": 0,
    "optim.clip_norm": 0.0,
    "optim.weight_decay": 5e-4,
    "optim.parts": (("head/*", 10.0, 1.0), ("head/*/bias", 2.0, 0.0)),
    "every_steps.eval": 2000,
    "every_steps.checkpoint": 2000,
    "eval.crf": {"preset": "deeplab_v2_resnet101"},
}


WORDS = vocabulary.Vocabulary(paper=("voc2012", "cityscapes"))


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    config = default.get_config()
    config.model = {
        "backbone": {
            "name": "resnet",
            "depth": 101,
            "norm": {"name": "batch"},
            "stem": "7x7",
            "stride_in": "1x1",
            "output_stride": 8,
            "pool_rounding": "ceil",
            "width": 64,
        },
        "head": {"name": "deeplab_v2", "rates": (6, 12, 18, 24), "align": "centres"},
        "aux": None,
        "multi_scale": {"scales": (1.0, 0.75, 0.5), "align": "corners"},
    }
    config.loss.at = "scores"
    config.loss.aux_weight = 1.0
    default.from_scratch(config)
    return vocabulary.apply(
        config,
        WORDS.read(words),
        paper={"voc2012": _PAPER | {"train_split": "trainaug"}, "cityscapes": _PAPER},
        data={
            "scenes": {"eval.crf": default.SCENES_CRF},
            "camvid": {"eval.crf": default.CAMVID_CRF},
            "voc2012": {"eval.crf": _PAPER["eval.crf"]},
        },
        smoke={"model.backbone.width": 4, "model.backbone.depth": 50, "optim.warmup_steps": 0},
    )
