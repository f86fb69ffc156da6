"""PSPNet on ResNet-50 (Zhao, Shi, Qi, Wang, Jia: Pyramid Scene Parsing Network, CVPR 2017; its
training as in the authors' PyTorch release, semseg).

Deep stem, output stride 8, pyramid of 1, 2, 3 and 6 bins, auxiliary loss of 0.4 on the stage before
the last. Published on ADE20K val, one scale: 41.68 mIoU, six with flips 42.78; re-trained by the
release: ADE20K 41.89 and 42.84, VOC 2012 77.05 and 78.02, Cityscapes 77.30 and 78.38. The numbers
of six scales are made through windows: `segjax.evaluate --protocol=pspnet_ms_flip`, for Cityscapes
`--protocol="pspnet_ms_flip, tile=(713, 713), long_side=2048"`.

`paper` on `ade20k`, `voc2012` (`train_split` trainaug) and `cityscapes` is the release's training:
batch 16, rate 0.01 and ten times that for all but the backbone, poly, scales 0.5 to 2, flips, half
of the images turned by up to 10 degrees and half smoothed, crops of 473 or 713. It starts from
ImageNet's weights: `--config.init.from=FILE`.

Elsewhere weights are drawn and AdamW trains: on images of 96 x 128 on `scenes`, crops of 224 x 288
on `camvid,small`, and without `small` on segjax's own schedule, not measured at full size.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

_PAPER = {
    "batch_size": 16,
    "augment.size": (473, 473),
    "augment.scale": (0.5, 2.0),
    "augment.rotation": 10.0,
    "augment.rotation_chance": 0.5,
    "augment.blur": 0.5,
    "init.needs": "ImageNet's ResNet with a deep stem",
    "init.skip": ("head/*", "aux/*"),
    "optim.name": "sgd",
    "optim.lr": 0.01,
    "optim.schedule": "poly",
    "optim.warmup_steps": 0,
    "optim.clip_norm": 0.0,
    "optim.weight_decay": 1e-4,
    "optim.parts": (("head/*", 10.0, 1.0), ("aux/*", 10.0, 1.0)),
    "every_steps.eval": 2500,
    "every_steps.checkpoint": 2500,
}


WORDS = vocabulary.Vocabulary(paper=("ade20k", "voc2012", "cityscapes"))


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return recipe(50, WORDS.read(words))


def recipe(depth: int, words: vocabulary.Words):
    """The family's, by depth."""
    norm = {"name": "batch", "momentum": 0.9}
    config = default.get_config()
    config.model = {
        "backbone": {
            "name": "resnet",
            "depth": depth,
            "norm": norm,
            "stem": "deep",
            "stride_in": "3x3",
            "output_stride": 8,
            "width": 64,
        },
        "head": {"name": "pspnet", "bins": (1, 2, 3, 6), "norm": norm, "width": 512},
        "aux": {"name": "conv", "stage": "stage4", "width": 256, "norm": norm, "drop_maps": True},
    }
    config.loss.aux_weight = 0.4
    default.from_scratch(config)
    return vocabulary.apply(
        config,
        words,
        small={"camvid": default.CAMVID_SMALL | {"input_scale": 1.0, "augment.size": (224, 288)}},
        paper={
            "ade20k": _PAPER | {"total_steps": 126_300},  # 100 epochs of 20,210
            "voc2012": _PAPER | {"total_steps": 33_050, "train_split": "trainaug"},  # 50 of 10,582
            # 200 epochs of 2,975
            "cityscapes": _PAPER | {"total_steps": 37_000, "augment.size": (713, 713)},
        },
        smoke={
            "model.backbone.width": 4,
            "model.head.width": 8,
            "model.aux.width": 8,
            "optim.warmup_steps": 0,
        },
    )
