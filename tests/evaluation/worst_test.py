"""The worst images of an evaluation."""

import types

import numpy as np

from segjax.evaluation import worst
from tests import tiny

LABEL = np.zeros((8, 8), np.uint8)


def result_of(right: dict[int, int]):
    """A result of two classes: data set index -> right pixels of 64, None for no truth."""
    rows = [
        np.zeros((3, 2), int) if n is None else np.array([[n, 0], [64, 0], [64, 0]])
        for n in right.values()
    ]
    return types.SimpleNamespace(index=np.array([*right]), marginals=np.array(rows))


class Source:
    def name(self, index):
        return f"image {index}"

    def __getitem__(self, index):
        return np.zeros((8, 8, 3), np.uint8), LABEL


class Labels:
    """Label maps that remember which were asked for."""

    def __init__(self):
        self.asked = []

    def __getitem__(self, name):
        self.asked.append(name)
        return LABEL


def test_the_worst_images_are_drawn_worst_first():
    result = result_of({0: 30, 1: 10, 2: 64, 3: 50, 4: 20, 9: None})
    assert [index for _, index in worst.worst(result)] == [1, 4, 0, 3, 2]
    labels = Labels()
    assert worst.draw(result, Source(), labels, tiny.SPEC, keep=2) is not None
    assert labels.asked == ["image 1", "image 4"]
    assert worst.draw(result_of({9: None}), Source(), labels, tiny.SPEC) is None


def test_of_images_that_are_equally_bad_the_first_are_drawn():
    result = result_of(dict.fromkeys((5, 3, 8, 1), 4))
    assert [index for _, index in worst.worst(result, keep=2)] == [1, 3]
