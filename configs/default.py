"""Every key there is, once, with its value; and the variants that every recipe takes."""

import difflib

import ml_collections

from segjax.errors import InputError

VARIANTS = (
    "scenes",
    "camvid",
    "voc2012",
    "cityscapes",
    "ade20k",
    "bsds500",
    "folder",
    "lecture",
    "smoke",
)
_OPTIONS = {"lecture": {"val_count": 50, "channel": ""}}  # of data sets, beside their root


def get_config() -> ml_collections.ConfigDict:
    """The defaults. Durations are in steps, batch sizes are global."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # of the weights, the order of the data, augmentation and dropout
    config.total_steps = 1000
    config.batch_size = 8
    config.accumulate = 1  # parts that a batch is worked off in
    config.dtype = "float32"  # of the computation; "bfloat16" on accelerators
    config.input_scale = 1.0  # the network sees images at this scale; scores return to full size
    config.input_size = (0, 0)  # or every image at this size; (0, 0): input_scale counts
    config.ema_decay = 0.0  # of the averaged weights, evaluated beside the raw ones; 0 keeps none
    config.mesh = {"space": 1}  # devices that share one image's height

    # The catalogue's name of the data set, and that entry's options.
    config.data = {"name": "scenes", "size": (96, 128)}
    config.train_split = "train"
    config.loader = {
        "threads": 4,  # that decode
        "workers": 0,  # processes that decode, for a host that threads do not fill
        "prefetch": 4,  # batches held ready
        "cache": False,  # keep decoded images in memory, for small sets
    }

    config.preprocess = {  # ImageNet's statistics
        "mean": (123.675, 116.28, 103.53),  # RGB, 0 to 255
        "std": (58.395, 57.12, 57.375),
        "bgr": False,
    }
    config.augment = {
        "size": (96, 128),  # the crop that the network is trained on
        "scale": (0.5, 2.0),
        "flip": 0.5,
        "rotation": 0.0,  # degrees
        "rotation_chance": 1.0,
        "blur": 0.0,  # chance of a Gaussian of 5 x 5
        "brightness": 0.0,  # of 255
        "contrast": 0.0,
        "saturation": 0.0,
        "hue": 0.0,  # degrees
    }

    _add_network(config)
    _add_training(config)
    return config


def _add_network(config: ml_collections.ConfigDict) -> None:
    """The keys of the network, its first weights and its loss."""
    # A recipe replaces one of these whole: a classical method and its options, or a network.
    config.method = {"name": ""}
    config.model = {"backbone": {"name": ""}, "head": {"name": ""}, "aux": None}
    config.init = {  # of the weights, before the first step
        "from": "",  # a file of weights, here or in $SEGJAX_WEIGHTS, or a run folder; "": drawn
        "step": "best",  # of a run folder: best, latest or a number
        "origin": "",  # of a file: see segjax/models/weights; "": told from its names
        "skip": (),  # patterns of parameter paths that need not match, such as "head/*"
        "preprocess": "weights",  # images as the weights know them; "config": as above
    }
    config.loss = {  # see segjax/losses
        "name": "cross_entropy",  # ohem, focal, dice, lovasz_softmax
        "also": (),  # (name, weight) of losses added to it
        "reduction": "mean_valid",  # class weights left out; mean_weighted: divided by them; or sum
        "class_weights": "none",  # median_frequency, inverse, effective_number
        "aux_weight": 0.4,
        "at": "image",  # scores are brought to the label; "scores": labels to the scores
        "blocks": 8,  # of rows, for upsampling and softmax
        "label_smoothing": 0.0,  # of cross_entropy and ohem
        "focal_gamma": 2.0,
        "ohem_threshold": 0.7,  # a truth as likely as that, or less, is hard
        "ohem_share": 0.0625,  # of the labelled pixels, the hardest that are kept in any case
        "region_classes": "present",  # of dice and lovasz_softmax: those of the image, or all
    }


def _add_training(config: ml_collections.ConfigDict) -> None:
    """The keys of training and evaluation."""
    config.optim = {
        "name": "sgd",  # or "adamw"
        "lr": 0.01,
        "schedule": "poly",  # constant, cosine, inverse_time, step
        "warmup_steps": 0,
        "power": 0.9,  # of poly
        "decay": 0.0,  # of inverse_time, and the factor of step
        "step_every": 0,  # of step
        "momentum": 0.9,  # beta 1 of adamw
        "nesterov": False,
        "b2": 0.999,  # of adamw
        "weight_decay": 5e-4,
        "clip_norm": 0.0,
        "parts": (),  # (pattern of parameter paths, lr multiplier, decay multiplier)
    }

    config.every_steps = {"log": 20, "eval": 250, "checkpoint": 250}
    config.eval = {
        "split": "val",
        "protocol": "single",  # the views of an image and their fusion: see segjax/protocol.py
        # The fully connected CRF behind the network; "": none. See segjax/crf: a recipe may replace
        # it whole, by a preset and whatever differs from it.
        "crf": {"preset": ""},
        "batch_size": 8,  # images, or windows of them, at once
        "limit": 0,  # examples, spread over the split; 0 takes all
        "bucket": 0,  # sides are filled up to a multiple; 1 never, 0: to 64 where sizes are many
        "pictures": 4,  # examples in the panel
    }
    config.predict = {
        "output": "labels",  # or "heatmaps": every class's map, of a classifier
        "classes": "",  # file of class names, a line each, here or in $SEGJAX_WEIGHTS
        "short_side": 0,  # images are brought to it first; 0 leaves them
        "window": 1,  # cells, each way, that the classifier pools over
        "top": 5,  # classes whose maps are drawn
        "box": (0, 0, 0, 0),  # top, left, bottom, right around what grabcut shall cut out
    }
    # Any scalar of metrics.jsonl chooses the best checkpoint, or ends the run.
    config.best = {"metric": "eval/miou", "mode": "max", "keep": 2}
    config.stop = {
        "metric": "eval/miou",
        "mode": "max",
        "patience": 0,  # evaluations without a better value; 0 never stops
        "skipped": 3,  # non-finite steps in a row
    }


CAMVID = {  # of networks that see its images at half size, on a small machine
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


def from_scratch(config: ml_collections.ConfigDict) -> None:
    """A training of few steps for drawn weights on small images: AdamW, poly, warm-up."""
    config.total_steps = 800
    config.optim.name = "adamw"
    config.optim.lr = 1e-3
    config.optim.weight_decay = 0.01
    config.optim.warmup_steps = 50
    config.optim.clip_norm = 5.0
    config.optim.parts = (("*/bias", 1.0, 0.0),)
    config.augment.scale = (0.75, 1.5)
    config.every_steps.eval = 200
    config.every_steps.checkpoint = 200


def apply_variants(
    config: ml_collections.ConfigDict, variants: str, **recipe: dict
) -> ml_collections.ConfigDict:
    """The one reading of variants.

    Args:
        config: the recipe on the embedded data set, which stands for `scenes` where no word names
            another.
        variants: comma-separated words of VARIANTS, and of the recipe's own; "" is the recipe as
            it stands.
        **recipe: for a variant, what this recipe changes under it: dotted key -> value. A name
            that is not in VARIANTS is a word of the recipe's own, applied after the data set's.

    Raises:
        InputError: on an unknown variant, or two data sets.
    """
    words = [word for word in variants.split(",") if word]
    own = [word for word in recipe if word not in VARIANTS]
    known = (*VARIANTS, *own)
    for word in words:
        if word not in known:
            near = difflib.get_close_matches(word, known, 1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise InputError(f"unknown variant {word!r}; known: {', '.join(known)}.{hint}")
    sets = [word for word in words if word not in ("smoke", *own)]
    if len(sets) > 1:
        raise InputError(f"variants {', '.join(sets)}: only one data set at a time.")
    for word in sets or ["scenes"]:
        if word != "scenes":
            # "": $SEGJAX_DATA/<name>
            config.data = {"name": word, "root": ""} | _OPTIONS.get(word, {})
        _set(config, recipe.get(word, {}))
    for word in own:
        if word in words:
            _set(config, recipe[word])
    if "smoke" in words:
        _set(config, _SMOKE | recipe.get("smoke", {}))
        if config.data.name == "scenes":
            config.data.size = (48, 64)
    return config


_SMOKE = {
    "total_steps": 4,
    "batch_size": 8,
    "augment.size": (48, 64),
    "every_steps.log": 1,
    "every_steps.eval": 2,
    "every_steps.checkpoint": 2,
    "eval.limit": 8,
    "eval.pictures": 2,
}


def _set(config: ml_collections.ConfigDict, values: dict) -> None:
    for key, value in values.items():
        *parents, last = key.split(".")
        part = config
        for parent in parents:
            part = part[parent]
        if last not in part:
            raise KeyError(f"A recipe's variant sets {key!r}, which is no key.")
        part[last] = value
