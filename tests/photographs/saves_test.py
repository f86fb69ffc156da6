"""The values of --save."""

import pytest

from segjax.errors import InputError
from segjax.photographs import saves


def test_a_comma_list_is_read_and_nothing_stands_for_the_default():
    assert saves.parse("labels, overlay,", saves.OF_NETWORKS) == {"labels", "overlay"}
    assert saves.parse("heatmaps", saves.OF_NETWORKS) == {"heatmaps"}
    assert saves.parse("", saves.OF_NETWORKS) == frozenset()


def test_an_unknown_value_gets_the_near_miss_and_the_list():
    with pytest.raises(
        InputError, match=r"--save: unknown 'overlya'; known: labels, ids, overlay, crf"
    ):
        saves.parse("labels,overlya", saves.OF_NETWORKS)
    with pytest.raises(InputError, match='Did you mean "overlay"'):
        saves.parse("overlya", saves.OF_NETWORKS)
    with pytest.raises(InputError, match="known: labels, boundaries, mean"):
        saves.parse("overlay", saves.OF_METHODS)


def test_heatmaps_go_with_nothing_else():
    with pytest.raises(InputError, match="heatmaps cannot be combined"):
        saves.parse("labels,heatmaps", saves.OF_NETWORKS)
    with pytest.raises(InputError, match="labels and ids are both <name>.png"):
        saves.parse("labels,ids", saves.OF_NETWORKS)


@pytest.mark.parametrize(
    ("crf", "samples", "expected"),
    [
        (False, False, {"labels", "overlay"}),
        (True, False, {"labels", "overlay", "crf"}),
        (False, True, {"labels", "overlay", "uncertainty"}),
        (True, True, {"labels", "overlay", "crf", "uncertainty"}),
    ],
)
def test_the_default_of_a_network_is_all_that_its_protocol_gives(crf, samples, expected):
    assert saves.of_network(frozenset(), crf=crf, samples=samples) == expected


def test_what_is_asked_for_is_all_there_is():
    assert saves.of_network(frozenset(["labels"]), crf=True, samples=True) == {"labels"}


def test_a_value_that_the_protocol_does_not_give_is_refused():
    with pytest.raises(InputError, match="--save=crf needs a CRF behind the network: --crf="):
        saves.of_network(frozenset(["labels", "crf"]), crf=False, samples=True)
    with pytest.raises(InputError, match="--save=uncertainty needs several passes: --protocol="):
        saves.of_network(frozenset(["uncertainty"]), crf=True, samples=False)


def test_values_are_told_in_one_order():
    assert saves.told(frozenset(["overlay", "labels"]), 1) == "labels, overlay of 1 image"
    assert saves.told(frozenset(saves.OF_METHODS), 2) == "labels, boundaries, mean of 2 images"
