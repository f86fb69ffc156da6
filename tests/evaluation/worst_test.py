"""The worst images of an evaluation."""

import numpy as np

from segjax.evaluation.worst import Worst
from tests import tiny


def test_the_worst_images_are_kept_and_drawn_worst_first():
    worst = Worst(keep=2)
    label = np.zeros((8, 8), np.uint8)
    image = np.zeros((8, 8, 3), np.uint8)
    for index, right in enumerate((30, 10, 64, 50, 20)):
        marginals = np.array([[right, 0], [64, 0], [64, 0]])
        worst.add(index, (image, label, label), marginals)
    worst.add(9, (image, label, label), np.zeros((3, 2), int))  # nothing labelled, no score
    captions = []

    def names(index):
        captions.append(index)
        return str(index)

    assert worst.draw(tiny.SPEC, names) is not None
    assert captions == [1, 4]
    assert Worst().draw(tiny.SPEC, str) is None


def test_of_images_that_are_equally_bad_the_first_stay():
    worst, label = Worst(keep=2), np.zeros((8, 8), np.uint8)
    for index in (5, 3, 8, 1):
        worst.add(index, (np.zeros((8, 8, 3), np.uint8), label, label), np.full((3, 2), 4))
    captions = []
    worst.draw(tiny.SPEC, lambda index: captions.append(index) or str(index))
    assert captions == [1, 3]
