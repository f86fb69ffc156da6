import sys

import ml_collections
import pytest
from absl import flags

from segjax import cli, network
from segjax.configuration import loading, options
from segjax.errors import InputError


def given(monkeypatch, *words: str) -> ml_collections.ConfigDict:
    """The config that a command with these words gets."""
    values = flags.FlagValues()
    monkeypatch.setattr(cli.flags, "FLAGS", values)
    monkeypatch.setattr("ml_collections.config_flags.config_flags.FLAGS", values)
    monkeypatch.setattr(sys, "argv", ["verb", *words])
    cli.config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    values["config"].parser = cli._RecipeParser("config")
    cli._parse(sys.argv)
    return cli.config()


@pytest.mark.parametrize(
    ("recipe", "word", "key", "value"),
    [
        ("fcn8s", "model.backbone.fc_batch_norm=false", "model.backbone.fc_batch_norm", False),
        ("refinenet_resnet101", "model.head.align=corners", "model.head.align", "corners"),
        ("pspnet_resnet50", "model.backbone.multi_grid=(1,2)", "model.backbone.multi_grid", (1, 2)),
        ("deeplab_v3_resnet101", "model.head.extra_conv=true", "model.head.extra_conv", True),
        ("deeplab_v3_resnet50", "model.head.norm.epsilon=0.5", "model.head.norm.epsilon", 0.5),
        ("pspnet_resnet50", "model.aux.dropout=0.2", "model.aux.dropout", 0.2),
        ("fcn8s", "model.crf.iterations=3", "model.crf.iterations", 3),
        ("fcn8s", "data.val_count=7", "data.val_count", 7),
        ("slic", "method.compactness=5.0", "method.compactness", 5.0),
        ("pretrained", "model.head.dropout=0.3", "model.head.dropout", 0.3),
    ],
)  # fmt: skip
def test_a_flag_sets_an_option_that_the_recipe_does_not_list(monkeypatch, recipe, word, key, value):
    config = given(monkeypatch, f"--config={recipe}", f"--config.{word}")
    *groups, last = key.split(".")
    assert options.config_at(config, ".".join(groups))[last] == value


def test_a_norm_may_be_given_by_its_name(monkeypatch):
    word = "--config.model.backbone.norm=frozen"
    for recipe in ("pspnet_resnet50", "deeplab_v1_largefov"):
        config = given(monkeypatch, f"--config={recipe}", word)
        assert config.model.backbone.norm.to_dict() == {"name": "frozen"}


def test_another_head_takes_its_own_options(monkeypatch):
    config = given(
        monkeypatch,
        "--config=fcn32s:smoke",
        "--config.model.head.name=deeplab_v2",
        "--config.model.head.rates=(6,12)",
        "--config.model.aux.name=conv",
        "--config.model.aux.width=8",
        "--config.model.aux.norm=batch",
    )
    model = network.model_of(config, 3)
    assert model.options["head"] == {"name": "deeplab_v2", "rates": (6, 12)}
    assert model.options["aux"] == {"name": "conv", "width": 8, "norm": {"name": "batch"}}


@pytest.mark.parametrize(
    ("recipe", "key", "text", "told"),
    [
        ("fcn8s", "model.head.extra_cnv", "1", "config.model.head: fcn8s takes no 'extra_cnv'; o"),
        (
            "deeplab_v3_resnet101",
            "model.head.extra_cnv",
            "true",
            "deeplab_v3 takes no 'extra_cnv'; options: .*Did you mean \"extra_conv\"",
        ),
        ("pspnet_resnet50", "model.backbone.norm.eps", "1", 'batch takes no .*"epsilon"'),
        ("fcn8s", "data.vall_count", "1", 'scenes takes no .*Did you mean "val_count"'),
        ("slic", "method.compact", "1", "slic takes no 'compact'"),
        ("fcn8s", "model.backbone.rngs", "1", "vgg16 takes no 'rngs'"),
    ],
)
def test_an_option_that_its_owner_lacks_is_refused_with_those_it_has(recipe, key, text, told):
    with pytest.raises(InputError, match=told):
        options.make_room(loading.load(recipe), {key: text})


@pytest.mark.parametrize(
    ("recipe", "key", "value", "told"),
    [
        ("fcn8s", "model.backbone.fc_batch_norm", "maybe", "it must be True or False or None"),
        ("deeplab_v3_resnet101", "model.head.extra_conv", 3, "it must be True or False"),
        ("pspnet_resnet50", "model.aux.dropout", "much", "it must be a finite number"),
        ("refinenet_resnet101", "model.head.align", 3, "it must be text"),
        ("refinenet_resnet101", "model.backbone.multi_grid", 3, "values in brackets"),
    ],
)
def test_a_value_of_another_type_than_the_signature_has_is_refused(recipe, key, value, told):
    config = loading.load(recipe)
    added = options.make_room(config, {key: ""})
    assert added == [key]
    *groups, last = key.split(".")
    options.config_at(config, ".".join(groups))[last] = value
    with pytest.raises(InputError, match=f"config.{key} is .*{told}"):
        options.check(config, added)
