"""Forms, grey images and unknown values; what each function takes is in the `arrays_test.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import contracts
from segjax.errors import InputError


@pytest.mark.parametrize(
    ("form", "fits", "not_"),
    [
        ("[H, W]", [(1, 1), (2, 3)], [(0, 3), (2,), (2, 3, 1), ()]),
        ("[K, K]", [(1, 1), (3, 3)], [(2, 3)]),
        ("[2, H] or [4, H]", [(2, 5), (4, 1)], [(3, 5), (2, 0)]),
        ("[..., H, 3]", [(1, 3), (5, 2, 3), (7, 1, 2, 3)], [(3,), (2, 4), (0, 2, 3)]),
        ("[...]", [(), (3,), (2, 2)], [(0,)]),
        ("[] or [3]", [(), (3,)], [(1,), (3, 3)]),
    ],
)
def test_a_form_is_a_shape(form, fits, not_):
    for shape in fits:
        assert contracts.real(np.zeros(shape), "x", form).shape == shape
    for shape in not_:
        with pytest.raises(InputError, match="x: got shape .*; allowed: "):
            contracts.real(np.zeros(shape), "x", form)


def test_grey_is_the_form_without_channels_whatever_the_width():
    grey = np.arange(15, dtype=np.uint8).reshape(5, 3)
    for form in (contracts.PICTURE, "[5, 3, 3] or [5, 3]"):
        found = contracts.image(grey, form=form)
        np.testing.assert_array_equal(found, np.stack([grey] * 3, -1))


def test_values_are_looked_at_only_where_they_are_known():
    nan = np.full((2, 3, 3), np.nan, np.float32)
    with pytest.raises(InputError, match="image: got nan"):
        contracts.image(nan)
    assert jax.jit(contracts.image)(nan).shape == (2, 3, 3)
    assert jax.vmap(contracts.image)(nan[None]).shape == (1, 2, 3, 3)
    half = jnp.array([[True, False, True]] * 2)
    with pytest.raises(InputError, match="image: got nan"):
        contracts.image(nan, inside=half)
    contracts.image(nan, inside=~(half | True))
    jax.jit(lambda inside: contracts.image(nan, inside=inside))(half)


def test_a_black_image_of_floats_is_black_by_any_rule():
    np.testing.assert_array_equal(contracts.image(np.zeros((2, 2, 3))), np.zeros((2, 2, 3)))


def test_the_only_value_of_nothing_is_refused():
    for nothing in (None, "photo.jpg", b"", {}, object()):
        with pytest.raises(InputError, match="image: got "):
            contracts.image(nothing)
