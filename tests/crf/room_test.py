"""The capacity of lattices, which grows until every image fits."""

import numpy as np
import pytest

from segjax import crf as crfs
from segjax.errors import InputError


def test_room_grows_to_the_least_share_that_is_enough():
    room = crfs.Room(0.5)
    assert room.capacity((10, 20)) == 100
    room.grow((10, 20), 301)
    assert room.capacity((10, 20)) == 400
    room.grow((10, 20), 101)
    assert room.capacity((10, 20)) == 400
    with pytest.raises(InputError, match="theta_alpha or theta_beta is too small for 10 x 20"):
        room.grow((10, 20), np.iinfo(np.int32).max)
