import functools
import importlib
import json
import pathlib
import zipfile

import jax
import pytest

from segjax import classical, models
from segjax import crf as crfs
from segjax.configs import (
    deeplab_v2_resnet101,
    deeplab_v3plus_resnet50,
    default,
    fcn8s,
    fcn8s_googlenet,
    fcn16s,
    fcn32s,
    segnet,
)
from segjax.configuration import loading, vocabulary
from segjax.errors import InputError
from segjax.models import functional
from tests import programs, tiny

OF_WEIGHTS = "pretrained"  # its network is that of a file
RECIPES = [name for name in loading.shipped() if name != OF_WEIGHTS]


def recipe(name: str):
    return importlib.import_module(f"segjax.configs.{name}")


def texts(name: str) -> list[str]:
    """A recipe's words: every data set, cut, whole and as in the paper, and each of its own."""
    words = recipe(name).WORDS
    sizes = ("", "small") if words.trains else ("",)
    papers = [f"{data},paper" for data in words.paper]
    plain = [f"{data},{size}" for data in words.data for size in sizes]
    return ["", "smoke", *plain, *papers, *words.own, *[f"{text},smoke" for text in papers]]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_its_words_and_its_network_or_method_can_be_built(name):
    sizes = {}
    for words in texts(name):
        config = recipe(name).get_config(words)
        part = config.method if config.method.name else config.model
        what = part.to_json()
        if what in sizes:  # most words leave the method or the network alone
            continue
        if config.method.name:
            labels = labels_of(config)
            assert (labels.shape, labels.dtype) == ((48, 64), "int32")
            sizes[what] = labels.size
        else:
            sizes[what] = count(config)
    assert min(sizes.values()) > 0


def test_the_recipe_of_weights_takes_every_word_and_leaves_the_network_to_them():
    for words in texts(OF_WEIGHTS):
        config = recipe(OF_WEIGHTS).get_config(words)
        assert config.init.network == "weights"
        assert config.model.backbone.name == config.model.head.name == ""
        with pytest.raises(InputError, match="this training starts from the weights whose network"):
            vocabulary.check_weights(config)


def labels_of(config) -> jax.ShapeDtypeStruct:
    method = classical.build(**config.method)
    given = [jax.ShapeDtypeStruct((48, 64, 3), "uint8")]
    if classical.takes_box(method):
        given.append(jax.ShapeDtypeStruct((4,), "int32"))
    return jax.eval_shape(method, *given)


def count(config, classes: int = 11) -> int:
    return parameters(config.model.to_json(), classes)


@functools.cache
def parameters(model: str, classes: int) -> int:
    def build(rngs):
        return models.build(**json.loads(model), num_classes=classes, dtype="float32", rngs=rngs)

    return tiny.count(jax.eval_shape(lambda: functional.initial_arrays(build, 0)[0]))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is(name):
    assert len(recipe(name).__doc__) > 100
    for word in recipe(name).WORDS.own:
        assert f"`{word}`" in recipe(name).__doc__ or "words" in recipe(name).__doc__


@functools.cache
def before() -> dict[str, dict]:
    """ "RECIPE:WORDS" of today -> the config that commit 26ab59c had for it, by its words then."""
    path = pathlib.Path(programs.ROOT) / "tests" / "fixtures" / "configs_26ab59c.zip"
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("configs.json"))


@pytest.mark.parametrize("name", RECIPES)
def test_configs_are_what_they_were_before_the_grammar(name):
    # These keys are new, or gone; a paper's training says what must not match its first weights.
    ignored = {
        "init.needs",
        "init.network",
        "init.differs",
        "eval.metrics",
        "augment.name",
        "predict.output",
        "steps_per_dispatch",
        "remat",
    }
    texts = [value.partition(":")[2] for value in before() if value.partition(":")[0] == name]
    assert texts
    for text in texts:
        more = set()
        if "paper" in text:
            more = {"init.skip"} | ({"train_split"} if name.startswith(("fcn", "crf")) else set())
        if "small" in text or "paper" in text:  # folders of runs that it starts from
            more |= {"init.from"} if name in ("fcn8s", "fcn16s", "crf_rnn_fcn8s") else set()
        if (name, text) == ("crf_rnn_fcn8s", "folder,small"):
            more = {"init.from", "model.crf.vertices"}
        then = dotted(before()[f"{name}:{text}"])
        now = dotted(json.loads(recipe(name).get_config(text).to_json()))
        for key in (then.keys() | now.keys()) - ignored - more:
            assert now.get(key, "absent") == then.get(key, "absent"), (text, key)


def dotted(tree, prefix: str = "") -> dict:
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {
        key: value
        for name, part in tree.items()
        for key, value in dotted(part, f"{prefix}{name}.").items()
    }


@pytest.mark.parametrize("name", [n for n in RECIPES if recipe(n).WORDS.trains])
def test_only_scenes_and_small_are_cut(name):
    counts = {}
    for text in ("", "camvid", "camvid,small", "voc2012", "ade20k", "folder", "lecture"):
        config = recipe(name).get_config(text)
        counts[text] = count(config)
        if text not in ("", "camvid,small") and name != "fcn8_lecture":
            assert config.input_scale == 1
            assert min(config.augment.size) >= 321
            assert config.optim.name == "adamw"
    assert len({counts[text] for text in counts if text not in ("", "camvid,small")}) == 1
    assert counts[""] == counts["camvid,small"] <= counts["camvid"]
    cut = name.startswith(("fcn8s", "fcn16s", "fcn32s", "crf_rnn", "segnet", "bayesian"))
    whole = name in ("fcn8s_googlenet", "segnet_basic")
    assert (counts[""] < counts["camvid"]) == (cut and not whole)


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
    paper = fcn8s.get_config("voc2012,paper")
    assert (paper.train_split, paper.optim.lr, paper.batch_size) == ("trainaug", 1e-14, 1)
    assert fcn8s.get_config("heavy,camvid").augment.size == (360, 480)
    assert fcn8s.get_config("heavy,cityscapes").augment.size == (1024, 2048)


def test_a_stage_starts_from_the_default_folder_of_the_one_before():
    cases = {
        (fcn16s, "staged"): ("runs/fcn32s", "head/score_pool4/*"),
        (fcn16s, "small,staged,camvid"): ("runs/fcn32s-camvid-small", "head/score_pool4/*"),
        (fcn8s, "voc2012,paper,staged"): ("runs/fcn16s-voc2012-paper-staged", "head/score_pool3/*"),
        (fcn8s, "staged"): ("runs/fcn16s-staged", "head/score_pool3/*"),
        (fcn8s, "heavy,staged,smoke"): ("runs/fcn16s-heavy-staged-smoke", "head/score_pool3/*"),
    }
    for (module, variants), (folder, skip) in cases.items():
        config = module.get_config(variants)
        assert config.init["from"] == folder
        assert config.init.skip == (skip,)
    assert fcn8s.get_config("staged").optim.lr < fcn8s.get_config("").optim.lr


def test_scratch_differs_in_the_first_weights_alone():
    with_weights = fcn8s_googlenet.get_config("camvid,small").to_dict()
    drawn = fcn8s_googlenet.get_config("camvid,small,scratch").to_dict()
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
        ("cityscapes,paper", {"preset": "deeplab_v2_resnet101"}),
        ("cityscapes", {"preset": ""}),
        ("folder", {"preset": ""}),
        ("ade20k", {"preset": ""}),
    ],
)
def test_the_crf_of_a_recipe_is_the_one_of_its_data_set(variants, crf):
    config = deeplab_v2_resnet101.get_config(variants)
    assert config.eval.crf.to_dict() == crf
    crfs.build(**config.eval.crf)


def test_where_a_paper_started_from_weights_its_training_needs_them():
    for name in RECIPES:
        for data in recipe(name).WORDS.paper:
            config = recipe(name).get_config(f"{data},paper")
            if name == "segnet_basic":  # from drawn weights
                assert not config.init.needs
            else:
                assert config.init.needs or config.init["from"], name
                assert config.init.skip, name
            assert not recipe(name).get_config(f"{data},paper,smoke").init.needs
    assert segnet.get_config("camvid,paper").init.skip == ("*/norm/*", "head/*", "backbone/fc*")
    second = recipe("deeplab_v3_resnet101").get_config("voc2012,paper,frozen")
    assert "first stage" in second.init.needs
    assert second.init.skip == ()


def test_a_word_that_a_recipe_does_not_know_is_refused_with_those_that_it_does():
    with pytest.raises(InputError, match='"heavy"'):
        fcn8s.get_config("heavi")
    with pytest.raises(InputError, match="unknown 'at_once'; known: .*smoke, heavy"):
        fcn32s.get_config("at_once")
    with pytest.raises(InputError, match="unknown 'cascade'; known: .*smoke, frozen"):
        deeplab_v3plus_resnet50.get_config("cascade")


@pytest.mark.parametrize("name", RECIPES)
def test_every_pair_of_recipe_and_data_set_is_set_up_or_refused(name):
    words = recipe(name).WORDS
    for data in vocabulary.DATA_SETS:
        if data in words.data:
            assert recipe(name).get_config(data).data.name == data
        else:
            with pytest.raises(InputError, match=f"does not support {data}; it supports"):
                recipe(name).get_config(data)
    if words.trains:
        assert set(words.data) == set(vocabulary.LABELLED)
