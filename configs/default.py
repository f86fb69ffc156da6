"""Every key of the config, once: its default, the values allowed, what a resumed run may change.

Below the table are the blocks of values that recipes share: the cuts for small machines, segjax's
own schedules for real data sets, the CRFs.
"""

import copy
from collections.abc import Mapping
from typing import Any

import ml_collections

from segjax.configuration import allowed
from segjax.configuration.allowed import Change, Key
from segjax.errors import InputError

_FREELY, _GROWS = Change.FREELY, Change.GROWS
_SHARE = allowed.number(0, 1)
_POSITIVE = allowed.number(above=0)
_NOT_NEGATIVE = allowed.number(0)
_SIZE = allowed.several(allowed.whole(1), 2, "(height, width)")
_MODE = allowed.choice("max", "min")
_WORD = allowed.text(empty=False)
_OPTIONS = allowed.part()  # of what is named beside them; it checks them
_METRICS = allowed.rows(
    'metrics added to the shipped ones, each a name or a pair ("name", {"option": value})',
    allowed.either(_WORD, allowed.row(_WORD, allowed.part())),
)
_LOSSES = allowed.rows(
    'pairs (name, weight from 0 on), such as (("dice", 1.0),)', allowed.row(_WORD, _NOT_NEGATIVE)
)
_PARTS = allowed.rows(
    "rows (pattern of parameter paths, factor of the rate, factor of the decay), factors from 0 on",
    allowed.row(_WORD, _NOT_NEGATIVE, _NOT_NEGATIVE),
)

_FEW = allowed.whole(0, 1024)  # more fill the host's memory with batches, or with processes
# Steps are counted in int32 on the devices.
_MOST_STEPS = 2_000_000_000

# Durations are in steps, batch sizes are global.
KEYS = {
    "seed": Key(0, allowed.whole(0, 2**31 - 1)),  # of weights, order, augmentation and dropout
    "total_steps": Key(1000, allowed.whole(1, _MOST_STEPS), _GROWS),
    "batch_size": Key(8, allowed.whole(1)),
    "accumulate": Key(1, allowed.whole(1)),  # parts a batch is computed in, one after another
    # Steps that the host sends off at once, none beyond one that is logged, evaluated or saved.
    "steps_per_dispatch": Key(1, allowed.whole(1, 1024), _FREELY),
    "dtype": Key("float32", allowed.choice("float32", "bfloat16")),  # of the computation
    # What a step computes again rather than keep, for memory: see segjax/models/remat.
    "remat": Key("none", allowed.choice("none", "norms", "blocks"), _FREELY),
    "input_scale": Key(1.0, _POSITIVE),  # the network sees images at this scale
    # Or it sees every image at this size; (0, 0): input_scale counts.
    "input_size": Key((0, 0), allowed.several(allowed.whole(), 2, "(height, width)")),
    # Of the averaged weights, evaluated beside the raw ones; 0 keeps none.
    "ema_decay": Key(0.0, allowed.number(0, below=1)),
    "mesh.space": Key(1, allowed.whole(1), _FREELY),  # devices that share one image's height
    # The data set's name in the catalogue, or "module:Name", and its options. Replaced whole.
    "data": Key({"name": "scenes", "size": (96, 128)}, allowed.part("name"), free=("root",)),
    "train_split": Key("train", _WORD),
    "loader.threads": Key(4, _FEW, _FREELY),  # that decode
    "loader.workers": Key(0, _FEW, _FREELY),  # processes that decode, beside threads
    "loader.prefetch": Key(4, _FEW, _FREELY),  # batches held ready
    "loader.cache": Key(False, allowed.flag(), _FREELY),  # keep decoded images in memory
    # The network's input is (RGB - mean) / std; the defaults are ImageNet's statistics.
    "preprocess.mean": Key((123.675, 116.28, 103.53), allowed.several(allowed.number(0, 255), 3)),
    "preprocess.std": Key((58.395, 57.12, 57.375), allowed.several(_POSITIVE, 3)),
    "preprocess.bgr": Key(False, allowed.flag()),  # hand the channels over as blue, green, red
    "augment.name": Key("standard", _WORD),  # or "module:Name"
    "augment.options": Key({}, _OPTIONS),
    "augment.size": Key((96, 128), _SIZE),  # the crop that the network is trained on
    "augment.scale": Key((0.5, 2.0), allowed.several(_POSITIVE, 2, "(least, most)")),
    "augment.flip": Key(0.5, _SHARE),  # chance
    "augment.rotation": Key(0.0, allowed.number(0, 180)),  # degrees, either way
    "augment.rotation_chance": Key(1.0, _SHARE),
    "augment.blur": Key(0.0, _SHARE),  # chance of a Gaussian of 5 x 5
    "augment.brightness": Key(0.0, _SHARE),  # of 255
    "augment.contrast": Key(0.0, allowed.number(0, below=1)),
    "augment.saturation": Key(0.0, _NOT_NEGATIVE),
    "augment.hue": Key(0.0, allowed.number(0, 180)),  # degrees
    # A classical method and its options, or a network. A recipe replaces one of the two whole.
    "method": Key({"name": ""}, allowed.part("name")),
    "model": Key(
        {"backbone": {"name": ""}, "head": {"name": ""}, "aux": None},
        allowed.part("backbone", "head"),
        free=("crf.vertices",),
    ),
    # The weights before the first step.
    "init.from": Key("", allowed.text()),  # a file, here or in $SEGJAX_WEIGHTS, or a run folder
    "init.step": Key("best", allowed.step()),  # of a run folder
    "init.origin": Key("", allowed.text()),  # of a file; "": told from its names
    # Patterns of parameter paths that need not match.
    "init.skip": Key((), allowed.rows('patterns such as ("head/*",)', _WORD)),
    # config: the network is `model`; weights: it is the one that the weights were made for.
    "init.network": Key("config", allowed.choice("config", "weights")),
    # Patterns of options in which the network differs on purpose from that of the weights.
    "init.differs": Key((), allowed.rows('patterns such as ("model.head.align",)', _WORD)),
    # weights: images are preprocessed as the weights know them; config: as `preprocess` says.
    "init.preprocess": Key("weights", allowed.choice("weights", "config")),
    "init.needs": Key("", allowed.text(), _FREELY),  # weights that the training must start from
    "loss.name": Key("cross_entropy", _WORD),  # of segjax/losses, or "module:Name"
    "loss.also": Key((), _LOSSES),  # losses added to it
    "loss.options": Key({}, _OPTIONS),
    # mean_valid: divided by the labelled pixels; mean_weighted: by the sum of their class weights.
    "loss.reduction": Key("mean_valid", allowed.choice("mean_valid", "mean_weighted", "sum")),
    "loss.class_weights": Key("none", _WORD),  # median_frequency, inverse, effective_number
    "loss.aux_weight": Key(0.4, _NOT_NEGATIVE),
    # image: scores are resized to the labels; scores: labels to the scores.
    "loss.at": Key("image", allowed.choice("image", "scores")),
    "loss.blocks": Key(8, allowed.whole(1)),  # of rows, for upsampling and softmax
    "loss.label_smoothing": Key(0.0, _SHARE),  # of cross_entropy and ohem
    "loss.focal_gamma": Key(2.0, _NOT_NEGATIVE),
    "loss.ohem_threshold": Key(0.7, _SHARE),  # hard: a class no likelier than this
    "loss.ohem_share": Key(0.0625, _SHARE),  # of the labelled pixels: the hardest, always kept
    # Classes that dice and lovasz_softmax average over: those of the image, or all.
    "loss.region_classes": Key("present", allowed.choice("present", "all")),
    "optim.name": Key("sgd", _WORD),  # or adamw, or "module:Name"
    "optim.lr": Key(0.01, _POSITIVE),
    "optim.schedule": Key("poly", _WORD),  # constant, cosine, inverse_time, step, "module:Name"
    "optim.warmup_steps": Key(0, allowed.whole(0, _MOST_STEPS)),
    "optim.power": Key(0.9, _NOT_NEGATIVE),  # of poly
    "optim.decay": Key(0.0, _NOT_NEGATIVE),  # of inverse_time, and the factor of step
    "optim.step_every": Key(0, allowed.whole(0, _MOST_STEPS)),  # of step
    "optim.momentum": Key(0.9, allowed.number(0, below=1)),  # beta 1 of adamw
    "optim.nesterov": Key(False, allowed.flag()),
    "optim.b2": Key(0.999, allowed.number(0, below=1)),  # of adamw
    "optim.weight_decay": Key(5e-4, _NOT_NEGATIVE),
    "optim.clip_norm": Key(0.0, _NOT_NEGATIVE),  # 0 does not clip
    "optim.parts": Key((), _PARTS),
    "optim.options": Key({}, _OPTIONS),  # of the optimiser and the schedule
    "every_steps.log": Key(20, allowed.whole(1), _FREELY),
    "every_steps.eval": Key(250, allowed.whole(1), _FREELY),
    "every_steps.checkpoint": Key(250, allowed.whole(1), _FREELY),
    "eval.split": Key("val", _WORD),
    "eval.protocol": Key("single", _WORD),  # views of an image and their fusion
    # The fully connected CRF behind the network: a preset of segjax/crf and what differs from it;
    # "": none. A recipe may replace it whole.
    "eval.crf": Key({"preset": ""}, allowed.part("preset")),
    "eval.metrics": Key((), _METRICS, _FREELY),
    "eval.batch_size": Key(8, allowed.whole(1)),  # images, or windows of them, at once
    "eval.limit": Key(0, allowed.whole()),  # examples, spread over the split; 0 takes all
    # Sides are filled up to a multiple; 1 never, 0: to 64 where sizes are many.
    "eval.bucket": Key(0, allowed.whole()),
    "eval.pictures": Key(4, allowed.whole(), _FREELY),  # examples in the panel
    "predict.classes": Key("", allowed.text()),  # file of class names, here or in $SEGJAX_WEIGHTS
    "predict.short_side": Key(0, allowed.whole()),  # a classifier's images; 0 leaves them
    "predict.window": Key(1, allowed.whole(1)),  # cells, each way, that the classifier pools over
    "predict.top": Key(5, allowed.whole(1)),  # best classes, whose maps are drawn
    # The box around the object that grabcut cuts out.
    "predict.box": Key(
        (0, 0, 0, 0), allowed.several(allowed.whole(), 4, "(top, left, bottom, right)")
    ),
    # A scalar of training steps or evaluations chooses the best checkpoint, or ends the run.
    "best.metric": Key("eval/miou", _WORD),
    "best.mode": Key("max", _MODE),
    "best.keep": Key(2, allowed.whole(1), _FREELY),  # of the latest checkpoints, beside the best
    "stop.metric": Key("eval/miou", _WORD, _FREELY),
    "stop.mode": Key("max", _MODE, _FREELY),
    "stop.patience": Key(0, allowed.whole(), _FREELY),  # evaluations without a gain; 0: never stop
    "stop.skipped": Key(3, allowed.whole(1), _FREELY),  # non-finite steps in a row that end the run
}


def get_config() -> ml_collections.ConfigDict:
    """The defaults of `KEYS`."""
    config = ml_collections.ConfigDict()
    for name, key in KEYS.items():
        *groups, last = name.split(".")
        group = config
        for part in groups:
            group[part] = group.get(part, ml_collections.ConfigDict())
            group = group[part]
        group[last] = copy.deepcopy(key.default)
    return config


def change(config: ml_collections.ConfigDict, values: Mapping[str, Any]) -> None:
    """Sets dotted keys, which the config has already.

    Raises:
        InputError: if it lacks one of them.
    """
    for name, value in values.items():
        *groups, last = name.split(".")
        group = config
        for part in groups:
            group = group.get(part) if hasattr(group, "keys") else None
        if not hasattr(group, "keys") or last not in group:
            raise InputError(f"config.{name} is set, but this config has no such key.")
        group[last] = value


ADAMW = {  # for drawn weights
    "optim.name": "adamw",
    "optim.lr": 1e-3,
    "optim.schedule": "poly",
    "optim.weight_decay": 0.01,
    "optim.clip_norm": 5.0,
    "optim.parts": (("*/bias", 1.0, 0.0),),
}


def from_scratch(config: ml_collections.ConfigDict) -> None:
    """A training of few steps for drawn weights on small images: AdamW, poly, warm-up."""
    change(config, ADAMW)
    config.total_steps = 800
    config.optim.warmup_steps = 50
    config.augment.scale = (0.75, 1.5)
    config.every_steps.eval = 200
    config.every_steps.checkpoint = 200


CAMVID_SMALL = {  # of networks that see its images at half size
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
    "every_steps.eval": 300,
    "every_steps.checkpoint": 300,
}
# What `small` makes of a data set: crops, steps and widths for two CPU cores.
SMALL = {
    "camvid": CAMVID_SMALL,
    "voc2012": {"augment.size": (192, 192)},
    "cityscapes": {"augment.size": (192, 192), "input_scale": 0.25},
    "ade20k": {"augment.size": (192, 192)},
    "folder": {"augment.size": (192, 192)},
    "lecture": {"augment.size": (192, 192)},
}

_OURS = {
    "input_scale": 1.0,
    "augment.scale": (0.5, 2.0),
    "augment.brightness": 0.1,
    "augment.contrast": 0.2,
    "augment.saturation": 0.2,
    "optim.warmup_steps": 500,
}


def _ours(steps: int, batch_size: int, crop: tuple[int, int], evaluations: int = 20) -> dict:
    every = {"every_steps.eval": steps // evaluations, "every_steps.checkpoint": 500}
    return _OURS | {"total_steps": steps, "batch_size": batch_size, "augment.size": crop} | every


# segjax's own schedule on a data set at full size; none has been measured.
FULL = {
    "camvid": _ours(10_000, 8, (360, 480))
    | {"loader.cache": True, "loss.class_weights": "median_frequency"},
    "voc2012": _ours(30_000, 16, (513, 513)),
    "cityscapes": _ours(60_000, 8, (769, 769)),
    "ade20k": _ours(120_000, 16, (513, 513)),
    "folder": _ours(10_000, 8, (321, 321)),
    "lecture": _ours(10_000, 8, (321, 321)),
}

SMOKE = {
    "total_steps": 4,
    "batch_size": 8,
    "accumulate": 1,
    "augment.size": (48, 64),
    "every_steps.log": 1,
    "every_steps.eval": 2,
    "every_steps.checkpoint": 2,
    "eval.limit": 8,
    "eval.pictures": 2,
    "init.needs": "",
}

SCENES_CRF = {  # tuned behind FCN-8s, tried behind DeepLab v1: experiments/records/crf
    "preset": "deeplab_v1",
    "w1": 5.0,
    "theta_alpha": 30.0,
    "theta_beta": 4.0,
    "w2": 1.0,
    "theta_gamma": 1.0,
}

CAMVID_CRF = {  # tuned behind DeepLab v3 on MobileNetV2: experiments/records/crf
    "preset": "deeplab_v1",
    "w1": 5.0,
    "theta_alpha": 60.0,
    "theta_beta": 4.0,
    "theta_gamma": 1.0,
}
