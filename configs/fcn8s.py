"""FCN-8s (Long, Shelhamer, Darrell: Fully Convolutional Networks, CVPR 2015; PAMI 2017).

The network is the paper's: VGG-16, fc6 and fc7 as convolutions, skips from pool4 and pool3,
zero-initialised scores. Trained here from scratch, so batch norm follows each convolution (as in
the SegNet study's FCN), and the loss is the mean over valid pixels.

On `scenes`, images of 96 x 128, it is cut for a small machine: width 32 for 64, fc width 512 for
4096, SGD with a poly schedule. `small` cuts alike on the other data sets; `camvid,small` sees the
images at half size, 180 x 240, and its scores are brought back to 360 x 480 and judged there.
Without `small` a real data set gets the full width and segjax's own schedule (AdamW, poly and
warm-up), which has not been measured at full size.

`paper`, on `voc2012`, and `heavy`, on any data set, are the "heavy learning" of the PAMI paper and
its release, at full width: one whole image a step, summed loss, momentum 0.99, fixed rates, a
border of 100, no augmentation; 100,000 steps a stage. `paper` trains on SBD's masks, too
(`trainaug`), and starts from VGG-16: `--config.init.from=FILE`, or from the stage before, `staged`.
Published with it, VOC2011 val (736 images): 32s 63.6, 16s 65.0, 8s 65.5, 8s at once 65.4 mIoU.

`staged` starts from the stage before, in its default run folder: 32s -> 16s -> 8s, with a tenth of
the rate. Train them in this order; the new score layer is the only thing that is drawn. `at_once`
(8s alone) trains all stages together, pool4 scaled by 0.01 and pool3 by 0.0001.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

_HEAVY_RATES = {"fcn32s": 1e-10, "fcn16s": 1e-12, "fcn8s": 1e-14}
_BEFORE = {"fcn16s": "fcn32s", "fcn8s": "fcn16s"}
_NEW_SCORE = {"fcn16s": "head/score_pool4/*", "fcn8s": "head/score_pool3/*"}
# Whole images: the size of the data set's largest.
_HEAVY_SIZES = {
    "scenes": (96, 128),
    "camvid": (360, 480),
    "lecture": (360, 480),
    "folder": (500, 500),
    "voc2012": (500, 500),
    "cityscapes": (1024, 2048),
    "ade20k": (683, 683),  # a few are larger: of them it is a crop
}

SMOKE = {"model.backbone.width": 4, "model.backbone.fc_width": 16, "optim.warmup_steps": 0}
FULL = default.ADAMW | {"model.backbone.width": 64, "model.backbone.fc_width": 4096}

HEAVY = "the paper's heavy learning at full width, on any data set"
STAGED = "starts from the default run folder of the stage before"
WORDS = vocabulary.Vocabulary(
    {
        "heavy": HEAVY,
        "staged": STAGED,
        "at_once": "trains all stages together, pool4 scaled by 0.01 and pool3 by 0.0001",
    },
    paper=("voc2012",),
    exclusive=(("at_once", "staged"),),
)


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return recipe("fcn8s", WORDS.read(words))


def recipe(head: str, words: vocabulary.Words):
    """The family's: `head` is fcn32s, fcn16s or fcn8s."""
    own = {"heavy": heavy(head, words)}
    if head != "fcn32s":
        own["staged"] = _staged(head, words)
    if head == "fcn8s":
        own["at_once"] = {"model.head.at_once": True}
    return vocabulary.apply(
        on_scenes(head),
        words,
        full=FULL,
        small={
            "camvid": default.CAMVID_SMALL | {"optim.lr": 0.02, "optim.warmup_steps": 100},
        },
        paper={"voc2012": paper(head, words)},
        own=own,
        smoke=SMOKE,
    )


def on_scenes(head: str):
    """The recipe without words."""
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


def heavy(head: str, words: vocabulary.Words) -> dict:
    """Heavy learning: the release's solvers, whole images."""
    at_once = "at_once" in words
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
        "augment.size": _HEAVY_SIZES[words.data],
        "augment.scale": (1.0, 1.0),
        "augment.flip": 0.0,
        "augment.brightness": 0.0,
        "augment.contrast": 0.0,
        "augment.saturation": 0.0,
        "loss.reduction": "sum",
        "loss.class_weights": "none",
        "optim.name": "sgd",
        "optim.lr": 1e-10 if at_once else _HEAVY_RATES[head],
        "optim.schedule": "constant",
        "optim.warmup_steps": 0,
        "optim.momentum": 0.99,
        "optim.weight_decay": 5e-4,
        "optim.clip_norm": 0.0,
        "optim.parts": (("*/bias", 2.0, 0.0),),
        "every_steps.eval": 4000,
        "every_steps.checkpoint": 4000,
        "eval.batch_size": 1,
    }


def paper(head: str, words: vocabulary.Words) -> dict:
    """The paper's training on PASCAL VOC 2012 and SBD's masks."""
    return heavy(head, words) | {
        "train_split": "trainaug",
        "init.needs": "ImageNet's VGG-16",
        "init.skip": ("head/*",),
    }


def _staged(head: str, words: vocabulary.Words) -> dict:
    """From the default run folder of the stage before, under the same words."""
    before = _BEFORE[head]
    given = words.without("staged") if before == "fcn32s" else words  # it has none before it
    start = {"init.from": given.run_folder(before), "init.skip": (_NEW_SCORE[head],)}
    if "heavy" in words or words.size == "paper":
        return start
    if words.size == "full":
        return start | {"optim.lr": default.ADAMW["optim.lr"] / 10}
    return start | {"optim.lr": 0.002 if words.data == "camvid" else 0.005}
