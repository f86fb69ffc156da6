"""DeepLab v2 on ResNet-101, three scales (Chen, Papandreou, Kokkinos, Murphy, Yuille: DeepLab, PAMI
2018).

He et al.'s ResNet (strides in the 1 x 1), output stride 8, four 3 x 3 convolutions to the classes
at rates 6, 12, 18 and 24, summed; the image at 1, 0.75 and 0.5, maximum of the scores; the loss of
every scale and of the maximum. Published on PASCAL VOC 2012 val with weights from MS-COCO: 76.35
mIoU before the CRF, 77.69 after it; from ImageNet with three scales 71.27.

`:voc2012` is the paper's training: batch 10 in parts of one, 20,000 steps, poly, norms frozen. It
wants weights: `--config.init.from=FILE --config.init.skip='head/*'`. `:cityscapes` trains alike
(the paper's 70.4 is of overlapping tiles, without the three scales). Elsewhere weights are drawn
and norms trained; images of 96 x 128 on `scenes`, of half size on `:camvid`. The CRF: as in
configs/deeplab_v1_largefov.py.
"""

from configs import default

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


def get_config(variants: str = ""):
    """The recipe; `variants` as in configs/default.py."""
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
    return default.apply_variants(
        config,
        variants,
        scenes={"eval.crf": default.SCENES_CRF},
        camvid=default.CAMVID | {"eval.crf": default.CAMVID_CRF},
        voc2012=_PAPER | {"train_split": "trainaug"},
        cityscapes=_PAPER,
        folder={"augment.size": (192, 192)},
        smoke={"model.backbone.width": 4, "model.backbone.depth": 50, "optim.warmup_steps": 0},
    )
