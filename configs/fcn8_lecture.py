"""The FCN-8 of a lecture, a Keras variant of Long, Shelhamer, Darrell, CVPR 2015.

VGG-16 whose fc6 and fc7 are new layers, 7 x 7 and 1 x 1 with 4096 channels, without dropout; conv7
up by 4 without a score layer, ReLU on the scores of pool4 and pool3, the sum up by 8, all of it
learned (segjax/models/heads/fcn8_lecture.py). Every image is seen at 224 x 224 whatever its shape,
as x / 127.5 - 1, blue first; no augmentation. SGD at 0.01 / (1 + 5^-4 t), Nesterov momentum 0.9, no
weight decay, batches of 32, 200 epochs.

`lecture` reads the lecture's layout, `$SEGJAX_DATA/lecture` or `--config.data.root=DIR`, with
`images_prepped_train/` and `annotations_prepped_train/`; the last 50 images are for validation
(`--config.data.val_count`). Ids are in the masks' first channel, which for OpenCV is blue. Masks
that hold them in all three channels, and grey or palette PNGs, need no flag; where the channels
differ, give `--config.data.channel=blue`. `python -m experiments.records.lecture_layout` makes such
a folder from CamVid.

The network is cut nowhere. On `lecture`, on `scenes` and under `small` the lecture's training is
the one above, from drawn weights; `lecture,paper` starts it from VGG-16. On the other data sets
segjax's own schedule trains, on whole images at 224 x 224; it has not been measured.

Durations here are in steps: 200 epochs of the lecture's 317 images (CamVid's 367 less 50) are
200 x 317 / 32 = 1981. Keras takes 2000, since it ends each epoch with a batch of 29.

Errors of the lecture's listing are corrected here:
- Its list of masks is not sorted as that of the images is: pairs are found by name.
- It resizes masks bilinearly, which invents classes at every edge: labels are resized to the
  nearest, and scores return to the mask's own size before they are judged.
- It counts the classes of one mask: all masks of the training folder are read, or classes.txt is.
- A transposed convolution lacks its stride, and the end its softmax: kernels here are as large as
  their strides, and the softmax is part of the loss.

The lecture begins with ImageNet's VGG-16 (`--config.init.from=FILE`, from Keras or another origin;
head, fc6 and fc7 are drawn), though those weights were made for BGR less the mean. Without a file
all weights are drawn and learn slowly without batch norm: `--config.model.backbone.batch_norm=True`
helps.

Nesterov as optax has it, s <- m s + g, w <- w - lr (g + m s): Keras keeps the rate in the velocity,
v <- m v - lr g, w <- w + m v - lr g. The two are one while the rate stands still. With this
schedule an old gradient counts here with today's rate, there with its own, higher one: steps along
a steady gradient are up to 1.2 % shorter here (step 57), and 0.3 % at the end.
"""

import dataclasses
from typing import Any

from segjax.configs import default
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary(paper=("lecture",))
# The images stay at 224 x 224 and as they are.
_FULL = default.ADAMW | {
    "augment.size": (224, 224),
    "augment.scale": (1.0, 1.0),
    "augment.brightness": 0.0,
    "augment.contrast": 0.0,
    "augment.saturation": 0.0,
    "optim.decay": 0.0,
    "optim.nesterov": False,
}


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return _recipe(WORDS.read(words))


def _recipe(words: vocabulary.Words):
    if words.data == "lecture" and words.size == "full":  # its own training, from drawn weights
        words = dataclasses.replace(words, size="small")
    config = default.get_config()
    config.model = {
        "backbone": {
            "name": "vgg16",
            "batch_norm": False,
            "width": 64,
            "fc_width": 4096,
            "border": "same",
            "dropout": 0.0,
        },
        "head": {"name": "fcn8_lecture"},
        "aux": None,
    }
    config.init.skip = ("head/*", "backbone/fc6/*", "backbone/fc7/*")
    config.init.preprocess = "config"
    config.preprocess = {"mean": (127.5,) * 3, "std": (127.5,) * 3, "bgr": True}
    config.input_size = (224, 224)
    config.augment.size = (224, 224)
    config.augment.scale = (1.0, 1.0)
    config.augment.flip = 0.0
    config.batch_size = 32
    config.total_steps = 1981
    config.optim.lr = 0.01
    config.optim.schedule = "inverse_time"
    config.optim.decay = 5**-4
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.weight_decay = 0.0
    config.every_steps.eval = 200
    config.every_steps.checkpoint = 200
    cached = {"loader.cache": True}
    as_it_is: dict[str, dict[str, Any]] = dict.fromkeys(default.SMALL, {})
    return vocabulary.apply(
        config,
        words,
        full=_FULL,
        small=as_it_is | {"camvid": cached, "lecture": cached},
        paper={"lecture": cached | {"init.needs": "ImageNet's VGG-16"}},
        smoke={
            "model.backbone.width": 4,
            "model.backbone.fc_width": 16,
            "input_size": (32, 40),
            "augment.size": (32, 40),
        },
    )
