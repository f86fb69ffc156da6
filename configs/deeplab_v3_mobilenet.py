"""DeepLab v3 on MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2, CVPR 2018, section
6.3; Chen et al.: Rethinking Atrous Convolution for Semantic Image Segmentation, 2017).

Output stride 16 and, as the paper recommends, no atrous branches: 1 x 1 and image features.
Published on PASCAL VOC 2012 val, COCO weights: 75.32 mIoU at one scale.

It starts from the ImageNet weights of Keras, `$SEGJAX_WEIGHTS/mobilenet_v2_1.0_notop.safetensors`,
whose last convolution stays in the file; `scratch` draws its weights instead, with all else alike,
and `smoke` does, too. On `scenes` images of 96 x 128; `camvid,small` trains on crops of 224 x 288
at full resolution and is judged at 360 x 480 (ours: 59.96 mIoU on val, 34.76 from scratch, see
experiments/records); `voc2012,paper` is v3's training (30,000 steps of 16 crops of 513). Without
`small` or `paper` a real data set gets segjax's own schedule, not measured at full size.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

_PAPER = {
    "train_split": "trainaug",
    "total_steps": 30_000,
    "batch_size": 16,
    "augment.size": (513, 513),
    "augment.scale": (0.5, 2.0),
    "optim.name": "sgd",
    "optim.lr": 0.007,
    "optim.weight_decay": 4e-5,
    "optim.warmup_steps": 0,
    "optim.clip_norm": 0.0,
    "optim.parts": (),
    "every_steps.eval": 2500,
    "every_steps.checkpoint": 2500,
}

WORDS = vocabulary.Vocabulary(
    {"scratch": "draws the weights, with all else alike"}, paper=("voc2012",)
)


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    config = default.get_config()
    config.model = {
        "backbone": {
            "name": "mobilenet_v2",
            "norm": {"name": "batch", "momentum": 0.9, "epsilon": 1e-3},
            "width": 1.0,
            "output_stride": 16,
        },
        "head": {
            "name": "deeplab_v3",
            "rates": (),
            "norm": {"name": "batch", "momentum": 0.9},
            "width": 256,
            "dropout": 0.1,
        },
        "aux": None,
    }
    config.init["from"] = "mobilenet_v2_1.0_notop.safetensors"
    config.init.skip = ("head/*", "backbone/top/*")
    # Keras': also where nothing is loaded, so that `scratch` differs in nothing else.
    config.preprocess = {"mean": (127.5,) * 3, "std": (127.5,) * 3, "bgr": False}
    default.from_scratch(config)
    config.optim.parts = (("*/bias", 1.0, 0.0), ("head/*", 5.0, 1.0))
    config.batch_size = 8
    config.optim.lr = 3e-4
    scratch = {"init.from": "", "init.skip": ()}
    return vocabulary.apply(
        config,
        WORDS.read(words),
        small={
            "camvid": default.CAMVID_SMALL
            | {
                "total_steps": 2000,
                "batch_size": 8,
                "input_scale": 1.0,
                "augment.size": (224, 288),
                "augment.scale": (0.6, 1.4),
                "every_steps.eval": 400,
                "every_steps.checkpoint": 200,
            }
        },
        paper={"voc2012": _PAPER},
        own={"scratch": scratch},
        smoke={"model.backbone.width": 0.25, "model.head.width": 8, "optim.warmup_steps": 0}
        | scratch,
    )
