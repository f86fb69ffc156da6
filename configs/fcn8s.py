"""FCN-8s (Long, Shelhamer, Darrell: Fully Convolutional Networks, CVPR 2015; PAMI 2017).

The network is the paper's: VGG-16, fc6 and fc7 as convolutions, skips from pool4 and pool3,
zero-initialised scores. Trained here from scratch, so batch norm follows each convolution (as in
the SegNet study's FCN), the loss is the mean over valid pixels, and SGD follows a poly schedule.

Cut for a small machine, on `scenes`: width 32 for 64, fc width 512 for 4096, images of 96 x 128.
`:camvid` cuts alike and sees the images at half size, 180 x 240; its scores are brought back to
360 x 480 and judged there. The paper's width:
`--config.model.backbone.width=64 --config.model.backbone.fc_width=4096 --config.input_scale=1`.
"""

from configs import default


def get_config(variants: str = ""):
    """The recipe; `variants` as in configs/default.py."""
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
        "head": {"name": "fcn8s", "upsampling": "fixed"},
        "aux": None,
    }
    config.total_steps = 800
    config.batch_size = 8
    config.optim.lr = 0.05
    config.optim.warmup_steps = 50
    config.optim.parts = (("*/bias", 2.0, 0.0),)
    config.augment.scale = (0.75, 1.5)
    config.every_steps.eval = 200
    config.every_steps.checkpoint = 200
    return default.apply_variants(
        config,
        variants,
        camvid={
            "total_steps": 1200,
            "batch_size": 4,
            "input_scale": 0.5,
            "augment.size": (180, 240),
            "augment.scale": (0.75, 1.75),
            "augment.brightness": 0.1,
            "augment.contrast": 0.2,
            "augment.saturation": 0.2,
            "loader.cache": True,
            "loss.class_weights": "median_frequency",
            "optim.lr": 0.02,
            "optim.warmup_steps": 100,
            "every_steps.eval": 300,
            "every_steps.checkpoint": 300,
        },
        folder={"augment.size": (192, 192)},
        smoke={
            "model.backbone.width": 4,
            "model.backbone.fc_width": 16,
            "optim.warmup_steps": 0,
        },
    )
