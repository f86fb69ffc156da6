import importlib
import pathlib

import jax
import pytest

from configs import (
    deeplab_v2_resnet101,
    deeplab_v3plus_resnet50,
    default,
    fcn8s,
    fcn8s_googlenet,
    fcn16s,
    fcn32s,
)
from segjax import classical, models
from segjax import crf as crfs
from segjax.errors import InputError
from segjax.models import functional
from tests import programs, tiny

RECIPES = sorted(
    path.stem
    for path in (pathlib.Path(programs.ROOT) / "configs").glob("*.py")
    if path.stem not in ("__init__", "default")
)


def recipe(name: str):
    return importlib.import_module(f"configs.{name}")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_every_variant_and_its_network_or_method_can_be_built(name):
    sizes = {}
    for variants in ("", "smoke", *default.VARIANTS, "camvid,smoke"):
        config = recipe(name).get_config(variants)
        part = config.method if config.method.name else config.model
        what = part.to_json()
        if what in sizes:  # most variants leave the method or the network alone
            continue
        if config.method.name:
            labels = labels_of(config)
            assert (labels.shape, labels.dtype) == ((48, 64), "int32")
            sizes[what] = labels.size
        else:
            sizes[what] = count(config)
    assert min(sizes.values()) > 0


def labels_of(config) -> jax.ShapeDtypeStruct:
    method = classical.build(**config.method)
    given = [jax.ShapeDtypeStruct((48, 64, 3), "uint8")]
    if classical.takes_box(method):
        given.append(jax.ShapeDtypeStruct((4,), "int32"))
    return jax.eval_shape(method, *given)


def count(config) -> int:
    def build(rngs):
        return models.build(**config.model, num_classes=11, dtype=config.dtype, rngs=rngs)

    return tiny.count(jax.eval_shape(lambda: functional.initial_arrays(build, 0)[0]))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is_and_changes_no_key_but_known_ones(name):
    assert len(recipe(name).__doc__) > 100
    known = default.get_config()
    config = recipe(name).get_config("smoke")
    for key, value in config.items():
        if key not in ("model", "method", "data"):
            assert key in known
            assert not hasattr(value, "keys") or value.keys() == known[key].keys()


def test_heavy_learning_is_that_of_the_release():
    rates = {fcn32s: 1e-10, fcn16s: 1e-12, fcn8s: 1e-14}
    for module, rate in rates.items():
        config = module.get_config("heavy")
        assert config.optim.lr == rate
        assert (config.optim.schedule, config.optim.momentum) == ("constant", 0.99)
        assert (config.optim.weight_decay, config.optim.parts) == (5e-4, (("*/bias", 2.0, 0.0),))
        assert (config.batch_size, config.total_steps) == (1, 100_000)
        assert config.loss.reduction == "sum"
        backbone = config.model.backbone
        assert (backbone.width, backbone.fc_width, backbone.border) == (64, 4096, "caffe")
        assert not backbone.batch_norm
        assert (config.augment.scale, config.augment.flip) == ((1.0, 1.0), 0.0)
    at_once = fcn8s.get_config("heavy,at_once")
    assert (at_once.optim.lr, at_once.total_steps) == (1e-10, 300_000)
    assert at_once.model.head.at_once
    assert fcn8s.get_config("heavy,camvid").augment.size == (360, 480)
    assert fcn8s.get_config("heavy,cityscapes").augment.size == (1024, 2048)


def test_a_stage_starts_from_the_default_folder_of_the_one_before():
    cases = {
        (fcn16s, "staged"): ("runs/fcn32s", "head/score_pool4/*"),
        (fcn16s, "camvid,staged"): ("runs/fcn32s-camvid", "head/score_pool4/*"),
        (fcn8s, "staged"): ("runs/fcn16s-staged", "head/score_pool3/*"),
        (fcn8s, "heavy,staged,smoke"): ("runs/fcn16s-heavy-staged-smoke", "head/score_pool3/*"),
    }
    for (module, variants), (folder, skip) in cases.items():
        config = module.get_config(variants)
        assert config.init["from"] == folder
        assert config.init.skip == (skip,)
    assert fcn8s.get_config("staged").optim.lr < fcn8s.get_config("").optim.lr


def test_scratch_differs_in_the_first_weights_alone():
    with_weights = fcn8s_googlenet.get_config("camvid").to_dict()
    drawn = fcn8s_googlenet.get_config("camvid,scratch").to_dict()
    assert with_weights.pop("init") != drawn.pop("init")
    assert with_weights == drawn


@pytest.mark.parametrize(
    ("variants", "crf"),
    [
        ("", default.SCENES_CRF),
        ("scenes", default.SCENES_CRF),
        ("smoke", default.SCENES_CRF),
        ("camvid,smoke", default.CAMVID_CRF),
        ("voc2012", {"preset": "deeplab_v2_resnet101"}),
        ("cityscapes", {"preset": "deeplab_v2_resnet101"}),
        ("folder", {"preset": ""}),
        ("ade20k", {"preset": ""}),
    ],
)
def test_the_crf_of_a_recipe_is_the_one_of_its_data_set(variants, crf):
    config = deeplab_v2_resnet101.get_config(variants)
    assert config.eval.crf.to_dict() == crf
    crfs.build(**config.eval.crf)


def test_a_word_that_a_recipe_does_not_know_is_refused_with_those_that_it_does():
    with pytest.raises(InputError, match='"heavy"'):
        fcn8s.get_config("heavi")
    with pytest.raises(InputError, match="known: .*smoke, heavy$|known: .*heavy"):
        fcn32s.get_config("at_once")
    with pytest.raises(InputError, match="'cascade'; known: .*smoke, frozen"):
        deeplab_v3plus_resnet50.get_config("cascade")
