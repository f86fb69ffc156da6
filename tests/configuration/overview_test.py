import json
import pathlib
import re

import pytest

from segjax.configuration import keys, loading, overview
from tests import programs
from tests.configs_test import count, recipe

ROOT = pathlib.Path(programs.ROOT)
CLASSES = {"scenes": 11, "voc2012": 21, "imagenet": 1000}


def test_the_page_is_what_the_verb_prints():
    assert (ROOT / "docs" / "recipes.md").read_text() == overview.markdown() + "\n", (
        "python -m segjax.recipes --markdown > docs/recipes.md"
    )


def test_the_table_has_every_recipe_and_every_result_its_command():
    text = overview.text()
    for name in loading.shipped():
        assert re.search(rf"^{name} ", text, re.MULTILINE)
    for result in overview.results():
        assert result.command in text
        config = loading.load(result.command.split()[2].removeprefix("--config="))
        keys.check(config)
        for flag in result.flags.split():
            key, value = flag.removeprefix("--config.").split("=")
            assert default_of(config, key) != float(value)


def default_of(config, key: str):
    for name in key.split("."):
        config = config[name]
    return config


@pytest.mark.parametrize("name", sorted(overview.measured()["parameters"]))
def test_parameters_are_those_of_the_built_network(name):
    for data, stored in overview.measured()["parameters"][name].items():
        config = recipe(name).get_config(data if data in recipe(name).WORDS.data else "")
        assert count(config, CLASSES[data]) == stored, data


def test_every_network_has_its_parameters_in_the_table():
    networks = {name for name in loading.shipped() if not recipe(name).get_config().method.name}
    assert overview.measured()["parameters"].keys() == networks


@pytest.mark.parametrize("result", overview.results(), ids=lambda one: one.command)
def test_a_result_is_that_of_its_record(result):
    folder = ROOT / result.record
    assert (folder / "README.md").exists()
    for split, value in (("val", result.val), ("test", result.test)):
        path = folder / f"eval-{split}.json"
        if value is None:
            continue
        if path.exists():
            scores = json.loads(path.read_text())["scores"]
            key = "miou" if result.measure == "mIoU" else result.measure
            assert f"{100 * scores[key]:.2f}" == f"{value:.2f}"
        else:
            assert f"{value:.2f}" in (folder / "README.md").read_text()


def test_one_recipe_is_its_docstring_its_words_and_its_results():
    told = overview.describe("fcn8s")
    assert told.startswith("FCN-8s (Long, Shelhamer, Darrell")
    assert "`at_once`: trains all stages together" in told
    assert "`paper` goes with: voc2012." in told
    assert "mIoU val 70.69" in told
    assert "paper" not in overview.describe("slic").rpartition("Data sets")[2]
