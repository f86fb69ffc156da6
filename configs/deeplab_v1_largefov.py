"""DeepLab-LargeFOV on VGG-16 (Chen, Papandreou, Kokkinos, Murphy, Yuille: Semantic Image
Segmentation with Deep Convolutional Nets and Fully Connected CRFs, ICLR 2015).

Published on PASCAL VOC 2012 val, one scale: 62.25 mIoU before the CRF, 67.64 after it.

`voc2012,paper` is the paper's training: `train_split` trainaug, batch 20, 6000 steps, the rate
divided by ten every 2000, crops of 321, mirroring, the loss at the scores' places. It starts from
VGG-16's weights: `--config.init.from=FILE` takes Caffe's, torchvision's or Keras'.

Elsewhere weights are drawn, so a batch norm follows each convolution, as in configs/fcn8s.py, and
AdamW trains: in few steps on images of 96 x 128 on `scenes` and under `small`, of half size on
`camvid,small`; otherwise on segjax's own schedule, not measured at full size. The CRF stands behind
the network on VOC 2012 with the release's parameters, on `scenes` and CamVid with those that were
tuned there; `--config.eval.crf.preset=deeplab_v1` puts it anywhere. `multi_scale` is the form with
the image and four poolings scored, too (published: 64.21).
"""

from segjax.configs import default
from segjax.configuration import vocabulary

_PAPER = {
    "model.backbone.norm": {"name": "none"},
    "train_split": "trainaug",
    "total_steps": 6000,
    "batch_size": 20,
    "augment.size": (321, 321),
    "augment.scale": (1.0, 1.0),
    "preprocess.mean": (122.675, 116.669, 104.008),
    "preprocess.std": (1.0, 1.0, 1.0),
    "preprocess.bgr": True,
    "init.needs": "ImageNet's VGG-16",
    "init.skip": ("head/*",),
    "optim.name": "sgd",
    "optim.lr": 1e-3,
    "optim.schedule": "step",
    "optim.decay": 0.1,
    "optim.step_every": 2000,
    "optim.warmup_steps": 0,
    "optim.clip_norm": 0.0,
    "optim.weight_decay": 5e-4,
    "optim.parts": (("*/bias", 2.0, 0.0), ("head/*", 10.0, 1.0)),
    "every_steps.eval": 1000,
    "every_steps.checkpoint": 1000,
    "eval.crf": {"preset": "deeplab_v1"},
}

WORDS = vocabulary.Vocabulary(
    {"multi_scale": "scores the image and four poolings, too"}, paper=("voc2012",)
)


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    own = {"multi_scale": {"model.head.multi_scale": True}}
    return recipe((12,), WORDS.read(words), own=own)


def recipe(
    rates: tuple[int, ...],
    words: vocabulary.Words,
    paper: dict | None = None,
    own: dict | None = None,
):
    """VGG-16's: one rate is LargeFOV, several are ASPP; `paper` changes the paper's training."""
    config = default.get_config()
    config.model = {
        "backbone": {
            "name": "vgg16_atrous",
            "rates": rates,
            "fc_kernel": 3,
            "fc_width": 1024,
            "average": len(rates) == 1,
            "width": 64,
            "dropout": 0.5,
            "norm": {"name": "batch"},
        },
        "head": {"name": "deeplab_v1", "multi_scale": False},
        "aux": None,
    }
    config.loss.at = "scores"
    default.from_scratch(config)
    published = _PAPER | (paper or {})
    return vocabulary.apply(
        config,
        words,
        paper={"voc2012": published},
        data={
            "scenes": {"eval.crf": default.SCENES_CRF},
            "camvid": {"eval.crf": default.CAMVID_CRF},
            "voc2012": {"eval.crf": published["eval.crf"]},
        },
        own=own,
        smoke={
            "model.backbone.width": 4,
            "model.backbone.fc_width": 16,
            "optim.warmup_steps": 0,
        },
    )
