import itertools

import pytest

from segjax.configs import default, fcn8s, segnet, slic
from segjax.configuration import vocabulary
from segjax.errors import InputError

VOCABULARY = vocabulary.Vocabulary(
    {"heavy": "", "at_once": "", "staged": ""},
    paper=("voc2012", "cityscapes"),
    exclusive=(("at_once", "staged"),),
)


def test_words_come_in_any_order_and_twice():
    words = ["cityscapes", "heavy", "paper", "smoke"]
    read = {VOCABULARY.read(",".join(order)) for order in itertools.permutations(words)}
    assert read == {vocabulary.Words("cityscapes", "paper", smoke=True, own=("heavy",))}
    assert VOCABULARY.read(" heavy , ,heavy") == vocabulary.Words("scenes", own=("heavy",))


@pytest.mark.parametrize(
    ("text", "data", "size"),
    [
        ("", "scenes", ""),
        ("scenes", "scenes", ""),
        ("small", "scenes", ""),
        ("camvid", "camvid", "full"),
        ("small,camvid", "camvid", "small"),
        ("voc2012,paper", "voc2012", "paper"),
    ],
)
def test_nothing_but_scenes_is_cut_without_a_word(text, data, size):
    words = VOCABULARY.read(text)
    assert (words.data, words.size) == (data, size)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("smok", r"unknown 'smok'; known: scenes, .*, small, paper, smoke, heavy.*\"smoke\"\?$"),
        ("camvid,voc2012", r"camvid, voc2012: one data set at a time"),
        ("bsds500", r"does not support bsds500; it supports scenes, camvid, .*, lecture\."),
        ("paper", r"did not train on scenes; they trained on voc2012, cityscapes"),
        ("paper,camvid", r"did not train on camvid; they trained on voc2012, cityscapes"),
        ("paper,small,voc2012", r"paper, small: one of these words"),
        ("staged,at_once", r"at_once, staged: one of these words"),
    ],
)
def test_words_that_mean_nothing_together_are_refused(text, told):
    with pytest.raises(InputError, match=told):
        VOCABULARY.read(text)


def test_a_method_that_trains_nothing_has_no_small_and_no_paper():
    with pytest.raises(InputError, match="small: this recipe trains no network"):
        slic.get_config("small,camvid")
    with pytest.raises(InputError, match="paper: this recipe has no training"):
        slic.get_config("paper")
    with pytest.raises(InputError, match="did not train on scenes; they trained on camvid"):
        segnet.get_config("paper")
    assert slic.get_config("bsds500").data.name == "bsds500"


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("", "runs/fcn8s"),
        ("scenes", "runs/fcn8s"),
        ("small", "runs/fcn8s"),
        ("small,scenes,smoke", "runs/fcn8s-smoke"),
        ("camvid", "runs/fcn8s-camvid"),
        ("small,camvid", "runs/fcn8s-camvid-small"),
        ("smoke,staged,heavy", "runs/fcn8s-heavy-staged-smoke"),
        ("staged,voc2012,paper", "runs/fcn8s-voc2012-paper-staged"),
    ],
)
def test_the_run_folder_is_the_same_for_the_same_words(text, folder):
    assert vocabulary.run_folder("fcn8s", text) == folder
    assert fcn8s.WORDS.read(text).run_folder("fcn8s") == folder
    assert vocabulary.run_folder("fcn8s", ",".join(reversed(text.split(",")))) == folder


def test_a_later_block_of_values_counts():
    config = vocabulary.apply(
        default.get_config(),
        vocabulary.Words("camvid", "full", own=("heavy",)),
        full={"batch_size": 5, "total_steps": 7, "seed": 1},
        data={"camvid": {"total_steps": 8, "seed": 2}},
        own={"heavy": {"seed": 3}, "other": {"seed": 4}},
    )
    assert (config.batch_size, config.total_steps, config.seed) == (5, 8, 3)
    assert config.augment.size == default.FULL["camvid"]["augment.size"]
    assert config.data.to_dict() == {"name": "camvid", "root": ""}


def test_a_word_that_sets_what_a_config_lacks_is_refused():
    with pytest.raises(InputError, match=r"config\.model\.head\.width is set"):
        vocabulary.apply(
            default.get_config(),
            vocabulary.Words("scenes", own=("wide",)),
            own={"wide": {"model.head.width": 3}},
        )


def test_a_training_that_must_start_from_weights_says_so():
    config = fcn8s.get_config("voc2012,paper")
    with pytest.raises(InputError, match=r"starts from ImageNet's VGG-16: give --config.init.from"):
        vocabulary.check_weights(config)
    config.init["from"] = "vgg16.safetensors"
    vocabulary.check_weights(config)
    vocabulary.check_weights(fcn8s.get_config("voc2012,paper,smoke"))
    vocabulary.check_weights(fcn8s.get_config("voc2012"))
