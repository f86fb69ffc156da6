import json
import math
import pathlib
import re

import ml_collections
import pytest

from segjax.configs import default, fcn8s
from segjax.configuration import keys, loading
from segjax.configuration.allowed import Change
from segjax.errors import InputError

NAN, INFINITY = math.nan, math.inf

# One or more values of every key that it may not hold.
ODD = [
    ("seed", -1),
    ("seed", 2**31),
    ("seed", 0.5),
    ("total_steps", 0),
    ("total_steps", 1e4),
    ("total_steps", 2**31),
    ("batch_size", 0),
    ("batch_size", True),
    ("accumulate", 0),
    ("steps_per_dispatch", 0),
    ("remat", "all"),
    ("accumulate", 3),
    ("dtype", "float16"),
    ("input_scale", 0.0),
    ("input_scale", NAN),
    ("input_scale", 0.01),
    ("input_scale", 2.0**63),
    ("input_size", (0, 64)),
    ("input_size", (64, -64)),
    ("ema_decay", 1.0),
    ("ema_decay", -0.1),
    ("mesh.space", 0),
    ("data", {}),
    ("train_split", ""),
    ("loader.threads", -1),
    ("loader.workers", -1),
    ("loader.prefetch", -1),
    ("loader.prefetch", 2**31),
    ("loader.workers", 2048),
    ("loader.cache", 1),
    ("preprocess.mean", (0.0, 0.0)),
    ("preprocess.mean", (0.0, 0.0, 256.0)),
    ("preprocess.std", (0.0, 0.0, 0.0)),
    ("preprocess.std", (1.0, NAN, 1.0)),
    ("preprocess.bgr", "yes"),
    ("augment.name", ""),
    ("augment.options", (1,)),
    ("augment.size", (0, 64)),
    ("augment.size", (64,)),
    ("augment.size", (64.0, 64.0)),
    ("augment.scale", (2.0, 1.0)),
    ("augment.scale", (0.0, 1.0)),
    ("augment.scale", (1.0, INFINITY)),
    ("augment.scale", (0.01, 1.0)),
    ("augment.scale", (1.0, 1e30)),
    ("augment.flip", 1.5),
    ("augment.rotation", -5.0),
    ("augment.rotation_chance", NAN),
    ("augment.blur", 2.0),
    ("augment.brightness", -0.1),
    ("augment.contrast", 1.0),
    ("augment.saturation", -0.1),
    ("augment.hue", INFINITY),
    ("method", {"regions": 400}),
    ("model", {"backbone": {"name": "vgg16"}}),
    ("init.from", None),
    ("init.step", "first"),
    ("init.origin", 1),
    ("init.skip", "head/*"),
    ("init.network", "file"),
    ("init.differs", "model.head.align"),
    ("init.preprocess", "file"),
    ("init.needs", None),
    ("loss.name", ""),
    ("loss.also", (("dice",),)),
    ("loss.also", (("dice", -1.0),)),
    ("loss.also", ("dice", 1.0)),
    ("loss.options", None),
    ("loss.reduction", "mean"),
    ("loss.class_weights", None),
    ("loss.aux_weight", -0.4),
    ("loss.at", "label"),
    ("loss.blocks", 0),
    ("loss.label_smoothing", 1.1),
    ("loss.focal_gamma", -1.0),
    ("loss.ohem_threshold", 2.0),
    ("loss.ohem_share", NAN),
    ("loss.region_classes", "none"),
    ("optim.name", ""),
    ("optim.lr", NAN),
    ("optim.lr", 0.0),
    ("optim.lr", -0.1),
    ("optim.lr", INFINITY),
    ("optim.schedule", 1),
    ("optim.warmup_steps", -1),
    ("optim.power", -0.9),
    ("optim.decay", -1.0),
    ("optim.step_every", -1),
    ("optim.momentum", 1.0),
    ("optim.nesterov", 0),
    ("optim.b2", 1.0),
    ("optim.weight_decay", NAN),
    ("optim.clip_norm", -1.0),
    ("optim.parts", (("*/bias", 2.0),)),
    ("optim.parts", (("*/bias", -2.0, 0.0),)),
    ("optim.options", 3),
    ("every_steps.log", 0),
    ("every_steps.eval", 0),
    ("every_steps.checkpoint", -1),
    ("eval.split", " "),
    ("eval.protocol", ""),
    ("eval.crf", {}),
    ("eval.metrics", "miou"),
    ("eval.metrics", (("mine", 1),)),
    ("eval.batch_size", 0),
    ("eval.limit", -1),
    ("eval.bucket", -1),
    ("eval.pictures", -1),
    ("predict.classes", 3),
    ("predict.short_side", -1),
    ("predict.window", 0),
    ("predict.top", 0),
    ("predict.box", (1, 2, 3)),
    ("best.metric", ""),
    ("best.mode", "mean"),
    ("best.keep", 0),
    ("stop.metric", ""),
    ("stop.mode", "up"),
    ("stop.mode", "mx"),
    ("stop.patience", -1),
    ("stop.skipped", 0),
]


def changed(**values):
    """The defaults with other values, whatever their type; "__" for a dot."""
    config = fcn8s.get_config("smoke")
    for name, value in values.items():
        *groups, last = name.split("__")
        part = config
        for group in groups:
            part = part[group]
        with part.ignore_type():
            part[last] = value
    return config


@pytest.mark.parametrize(("key", "value"), ODD)
def test_an_odd_value_is_refused_in_one_line_naming_key_value_and_what_is_allowed(key, value):
    with pytest.raises(InputError) as raised:
        keys.check(changed(**{key.replace(".", "__"): value}))
    told = str(raised.value)
    assert told.startswith((f"config.{key} is ", "config.augment.scale is "))
    assert "\n" not in told
    shown = str(value).strip("{}") if isinstance(value, dict) else repr(value)
    assert shown in told or key == "input_scale"
    assert re.search(r"it must|with config\.", told)


def test_every_key_has_an_odd_value():
    assert {key for key, _ in ODD} == default.KEYS.keys()


def test_the_defaults_hold_and_get_config_has_them_all():
    for name, key in default.KEYS.items():
        assert key.kind.holds(key.default), name
    config = default.get_config()
    keys.check(config)
    found, gone = keys.fill(config.to_dict())
    assert not gone
    assert found == config.to_dict()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"optim__schedule": "step", "optim__step_every": 5}, r"optim.decay is 0.0; the schedule"),
        ({"optim__schedule": "step", "optim__decay": 0.1}, r"optim.step_every is 0; the schedule"),
        ({"optim__schedule": "inverse_time"}, r"optim.decay is 0.0; the schedule"),
        ({"input_size": (64, 64), "input_scale": 0.5}, r"input_scale is 0.5; it must be 1"),
        ({"input_size": (64, 64), "eval__bucket": 32}, r"eval.bucket is 32; it must be 0 or 1"),
        ({"loader__workers": 2, "loader__prefetch": 0}, r"loader.prefetch is 0; with"),
        ({"batch_size": 6, "accumulate": 4}, r"accumulate is 4; it must divide .*, 6"),
    ],
)
def test_values_that_do_not_fit_one_another_are_refused(values, told):
    with pytest.raises(InputError, match=told):
        keys.check(changed(**values))


def test_unknown_and_missing_keys_are_named_with_the_near_miss():
    config = fcn8s.get_config()
    config.optim.learning_rate = 0.1
    with pytest.raises(InputError, match=r"config\.optim\.learning_rate is not a key"):
        keys.check(config)
    config = fcn8s.get_config()
    config.total_step = 3
    with pytest.raises(InputError, match=r"total_step is not a key. Did you mean \"total_steps\""):
        keys.check(config)
    config = fcn8s.get_config()
    del config.optim.lr
    with pytest.raises(InputError, match=r"config\.optim\.lr is missing"):
        keys.check(config)


def test_a_stored_config_gets_newer_keys_and_loses_those_that_are_gone():
    stored = json.loads(fcn8s.get_config().to_json())
    for name in ("eval", "loss"):
        del stored[name]
    del stored["optim"]["clip_norm"]
    stored["predict"]["output"] = "labels"
    filled, gone = keys.fill(stored)
    assert gone == ["predict.output"]
    assert filled["eval"]["protocol"] == "single"
    assert filled["optim"]["clip_norm"] == 0.0
    assert filled["model"] == stored["model"]
    assert keys.differences(filled, json.loads(fcn8s.get_config().to_json())) == []


def test_what_a_resumed_run_may_change_is_said_by_kind():
    free = {name for name, key in default.KEYS.items() if key.change is Change.FREELY}
    for group in ("loader.", "mesh.", "every_steps.", "stop."):
        assert {name for name in default.KEYS if name.startswith(group)} <= free
    assert {"best.keep", "eval.pictures", "init.needs", "eval.metrics"} <= free
    assert not free & {"seed", "batch_size", "optim.lr", "eval.limit", "best.metric", "init.from"}
    assert default.KEYS["total_steps"].change is Change.GROWS
    assert default.KEYS["data"].free == ("root",)
    assert default.KEYS["model"].free == ("crf.vertices",)


def test_every_key_is_read_somewhere():
    code = "".join(
        path.read_text() for path in pathlib.Path(keys.__file__).parents[1].rglob("*.py")
    )
    for name in default.KEYS:
        last = name.rpartition(".")[2]
        assert re.search(rf"\b{last}\b", code), name


@pytest.mark.parametrize("name", loading.shipped())
def test_every_recipe_passes_under_every_word_it_takes(name):
    recipe = loading.module(name)
    for data in recipe.WORDS.data:
        sizes = ["", "small"] if recipe.WORDS.trains else [""]
        for size in sizes + ["paper"] * (data in recipe.WORDS.paper):
            for own in ("", *recipe.WORDS.own):
                for smoke in ("", "smoke"):
                    keys.check(recipe.get_config(",".join([data, size, own, smoke])))


def test_whole_numbers_beyond_int32_are_to_be_written_as_floats():
    tree = default.get_config().to_dict()
    tree["optim"]["clip_norm"] = 3 * 10**9  # a ConfigDict with the default would make it a float
    with pytest.raises(InputError, match=r"clip_norm is 3000000000; .* such as 3000000000.0\."):
        keys.check(ml_collections.ConfigDict(tree))
    told = keys.complaint("optim.clip_norm", 3 * 10**9)
    assert told.endswith("a finite number from 0 on, such as 3000000000.0.")
