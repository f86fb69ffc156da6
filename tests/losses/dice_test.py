import numpy as np

from segjax.losses import dice
from tests.losses import made


def test_dice_by_hand():
    logits = np.log(np.array([[[[0.5, 0.5], [0.25, 0.75]]]]))
    found = dice.dice(made.place_of(logits, np.array([[[0, 1]]], np.uint8)), classes="all")
    of_0, of_1 = 1 - (2 * 0.5 + 1) / (0.75 + 1 + 1), 1 - (2 * 0.75 + 1) / (1.25 + 1 + 1)
    np.testing.assert_allclose(found, [(of_0 + of_1) / 2], rtol=1e-6)
