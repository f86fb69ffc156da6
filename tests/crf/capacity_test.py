"""The capacity of lattices, which grows until every image fits."""

import numpy as np
import pytest

from segjax import crf as crfs
from segjax.errors import InputError


def test_the_capacity_grows_to_the_least_share_that_is_enough():
    capacity = crfs.LatticeCapacity(0.5)
    assert capacity.vertices((10, 20)) == 100
    capacity.grow((10, 20), 301)
    assert capacity.vertices((10, 20)) == 400
    capacity.grow((10, 20), 101)
    assert capacity.vertices((10, 20)) == 400
    with pytest.raises(InputError, match="theta_alpha or theta_beta is too small for 10 x 20"):
        capacity.grow((10, 20), np.iinfo(np.int32).max)
