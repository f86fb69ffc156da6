"""Numbers as text."""

import numpy as np
import pytest

from segjax import units


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (5.67e12, "5.67 TB"), (3e16, "30 PB")],
)
def test_numbers_have_three_digits_and_a_prefix(number, text):
    assert units.si(number, "B") == text


@pytest.mark.parametrize(
    ("size", "text"), [(2**20, "1.0 MiB"), (2**30, "1.00 GiB"), (np.int64(3 * 2**29), "1.50 GiB")]
)
def test_memory_is_told_in_gib_and_little_of_it_in_mib(size, text):
    assert units.memory(size) == text
