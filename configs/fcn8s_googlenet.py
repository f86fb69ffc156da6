"""FCN-8s on GoogLeNet (Long, Shelhamer, Darrell, CVPR 2015, table 1, there as FCN-32s).

The network is GoogLeNet's (Szegedy et al., CVPR 2015) with its average pooling dropped, and scores
from 5b, 4e and 3b. It starts from the ImageNet weights of the BVLC release:
`$SEGJAX_WEIGHTS/googlenet_bvlc.safetensors`; `scratch` draws its weights instead, with all else
alike, and `smoke` does, too.

Not the paper's: skips; AdamW, class weights and augmentation; on `scenes`, images of 96 x 128.
`camvid,small` trains on crops of 224 x 288 at full resolution and is judged at 360 x 480. Without
`small` a real data set gets segjax's own schedule, not measured at full size.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary({"scratch": "draws the weights, with all else alike"})


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    config = default.get_config()
    config.model = {
        "backbone": {"name": "googlenet", "width": 64, "dropout": 0.4},
        "head": {"name": "fcn8s", "upsampling": "fixed"},
        "aux": None,
    }
    config.init["from"] = "googlenet_bvlc.safetensors"
    config.init.skip = ("head/*",)
    # BVLC GoogLeNet's: also where nothing is loaded, so that `scratch` differs in nothing else.
    config.preprocess = {"mean": (123.0, 117.0, 104.0), "std": (1.0, 1.0, 1.0), "bgr": True}
    config.total_steps = 800
    config.batch_size = 4
    config.optim.name = "adamw"
    config.optim.lr = 3e-4
    config.optim.weight_decay = 0.01
    config.optim.warmup_steps = 50
    config.optim.clip_norm = 5.0
    config.optim.parts = (("*/bias", 1.0, 0.0), ("head/*", 5.0, 1.0))
    config.augment.scale = (0.75, 1.5)
    config.every_steps.eval = 200
    config.every_steps.checkpoint = 200
    scratch = {"init.from": "", "init.skip": ()}
    return vocabulary.apply(
        config,
        WORDS.read(words),
        small={
            "camvid": default.CAMVID_SMALL
            | {
                "input_scale": 1.0,
                "augment.size": (224, 288),
                "augment.scale": (0.6, 1.4),
                "every_steps.eval": 400,
                "every_steps.checkpoint": 200,
                "eval.batch_size": 4,
            }
        },
        own={"scratch": scratch},
        smoke={"model.backbone.width": 4, "optim.warmup_steps": 0} | scratch,
    )
