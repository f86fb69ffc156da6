"""FCN-8s (Long, Shelhamer, Darrell: Fully Convolutional Networks, CVPR 2015; PAMI 2017).

The network is the paper's: VGG-16, fc6 and fc7 as convolutions, skips from pool4 and pool3,
zero-initialised scores. Trained here from scratch, so batch norm follows each convolution (as in
the SegNet study's FCN), the loss is the mean over valid pixels, and SGD follows a poly schedule.

Cut for a small machine, on `scenes`: width 32 for 64, fc width 512 for 4096, images of 96 x 128.
`:camvid` cuts alike and sees the images at half size, 180 x 240; its scores are brought back to
360 x 480 and judged there. The paper's width:
`--config.model.backbone.width=64 --config.model.backbone.fc_width=4096 --config.input_scale=1`.

Words of this recipe, of fcn16s.py and of fcn32s.py:
- `staged` starts from the stage before, in its default run folder: 32s -> 16s -> 8s, with a tenth
  of the rate. Train them in this order; the new score layer is the only thing that is drawn.
- `heavy` is the "heavy learning" of the PAMI paper and its release, at full width: one whole image
  a step, summed loss, momentum 0.99, fixed rates, a border of 100, no augmentation; 100,000 steps
  a stage. It wants VGG-16: `--config.init.from=FILE --config.init.skip='head/*'`, or `staged`.
  Published with it, VOC2011 val (736 images): 32s 63.6, 16s 65.0, 8s 65.5, 8s at once 65.4 mIoU.
- `at_once` (8s alone) trains all stages together, pool4 scaled by 0.01 and pool3 by 0.0001.
"""

from configs import default

_HEAVY_RATES = {"fcn32s": 1e-10, "fcn16s": 1e-12, "fcn8s": 1e-14}
_BEFORE = {"fcn16s": "fcn32s", "fcn8s": "fcn16s"}
_NEW_SCORE = {"fcn16s": "head/score_pool4/*", "fcn8s": "head/score_pool3/*"}

SMOKE = {"model.backbone.width": 4, "model.backbone.fc_width": 16, "optim.warmup_steps": 0}


def get_config(variants: str = ""):
    """The recipe; `variants` as in configs/default.py, and the words above."""
    return recipe("fcn8s", variants)


def recipe(head: str, variants: str):
    """The family's: `head` is fcn32s, fcn16s or fcn8s."""
    config = on_scenes(head)
    own = {"heavy": heavy(head, variants)}
    if head != "fcn32s":
        own["staged"] = _staged(head, variants)
    if head == "fcn8s":
        own["at_once"] = {"model.head.at_once": True}
    return default.apply_variants(
        config,
        variants,
        camvid=default.CAMVID | {"optim.lr": 0.02, "optim.warmup_steps": 100},
        folder={"augment.size": (192, 192)},
        smoke=SMOKE,
        **own,
    )


def on_scenes(head: str):
    """The recipe before any variant."""
    config = default.get_config()
    config.model = {
        "backbone": {
            "name": "vgg16",
            "batch_norm": True,
            "width": 32,
            "fc_width": 512,
            "border": "same",
            "dropout": 0.5,
        },
        "head": {"name": head},
        "aux": None,
    }
    if head != "fcn32s":
        config.model.head.upsampling = "fixed"
    if head == "fcn8s":
        config.model.head.at_once = False
    config.total_steps = 800
    config.batch_size = 8
    config.optim.lr = 0.05
    config.optim.warmup_steps = 50
    config.optim.parts = (("*/bias", 2.0, 0.0),)
    config.augment.scale = (0.75, 1.5)
    config.every_steps.eval = 200
    config.every_steps.checkpoint = 200
    return config


def heavy(head: str, variants: str) -> dict:
    """Heavy learning: the release's solvers, whole images (the size of the data set's largest)."""
    words = variants.split(",")
    at_once = "at_once" in words
    sizes = {
        "scenes": (96, 128),
        "camvid": (360, 480),
        "lecture": (360, 480),
        "folder": (500, 500),
        "voc2012": (500, 500),
        "cityscapes": (1024, 2048),
        "ade20k": (683, 683),  # a few are larger: of them it is a crop
    }
    return {
        "model.backbone.batch_norm": False,
        "model.backbone.width": 64,
        "model.backbone.fc_width": 4096,
        "model.backbone.border": "caffe",
        "preprocess.mean": (122.67892, 116.66877, 104.00699),
        "preprocess.std": (1.0, 1.0, 1.0),
        "preprocess.bgr": True,
        "total_steps": 300_000 if at_once else 100_000,
        "batch_size": 1,
        "input_scale": 1.0,
        "augment.size": next((sizes[word] for word in words if word in sizes), sizes["scenes"]),
        "augment.scale": (1.0, 1.0),
        "augment.flip": 0.0,
        "augment.brightness": 0.0,
        "augment.contrast": 0.0,
        "augment.saturation": 0.0,
        "loss.reduction": "sum",
        "loss.class_weights": "none",
        "optim.lr": 1e-10 if at_once else _HEAVY_RATES[head],
        "optim.schedule": "constant",
        "optim.warmup_steps": 0,
        "optim.momentum": 0.99,
        "every_steps.eval": 4000,
        "every_steps.checkpoint": 4000,
        "eval.batch_size": 1,
    }


def _staged(head: str, variants: str) -> dict:
    """From the default run folder of the stage before, with the same words."""
    words = [word for word in variants.split(",") if word]
    before = _BEFORE[head]
    if before == "fcn32s":  # the first stage has none before it
        words = [word for word in words if word != "staged"]
    found = {"init.from": "-".join([f"runs/{before}", *words]), "init.skip": (_NEW_SCORE[head],)}
    if "heavy" not in words:
        found["optim.lr"] = 0.002 if "camvid" in words else 0.005
    return found
