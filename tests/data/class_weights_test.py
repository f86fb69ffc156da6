import numpy as np
import pytest

from segjax.data import class_weights, scan
from segjax.data.spec import DatasetSpec
from segjax.errors import InputError

SPEC = DatasetSpec("toy", ("a",), ((1, 1, 1),), ((0, 0),))


def _counts(pixels: list[int], image_pixels: list[int]) -> scan.Scan:
    zeros = np.zeros(len(pixels), np.int64)
    return scan.Scan(
        sizes=zeros[:0],
        pixels=np.array(pixels),
        void=0,
        images=zeros,
        image_pixels=np.array(image_pixels),
        raw={},
        spec=SPEC,
        digests=("",),
    )


def test_median_frequency_divides_by_the_images_that_hold_the_class():
    # Frequencies 0.5, 0.25 and 0.1, whose median is 0.25; the last class does not occur.
    result = _counts([50, 10, 10, 0], [100, 40, 100, 0])
    np.testing.assert_allclose(class_weights.median_frequency(result), [0.5, 1, 2.5, 0], rtol=1e-6)


def test_class_weights_are_chosen_by_name():
    result = _counts([10, 30, 0], [40, 40, 0])
    assert class_weights.by_name("none", result) is None
    inverse = class_weights.by_name("inverse", result)
    np.testing.assert_allclose(inverse, [1.5, 0.5, 0], rtol=1e-6)
    assert inverse.dtype == np.float32
    np.testing.assert_array_equal(
        class_weights.by_name("median_frequency", result), class_weights.median_frequency(result)
    )
    with pytest.raises(InputError, match="class_weights: unknown .invers.; known: none"):
        class_weights.by_name("invers", result)


def test_effective_numbers_saturate_for_frequent_classes():
    result = _counts([1, 10**9, 2 * 10**9], [1, 1, 1])
    rare, frequent, most = class_weights.by_name("effective_number", result).astype(np.float64)
    assert frequent == pytest.approx(most, rel=1e-6)
    assert rare / frequent == pytest.approx(1e6, rel=1e-3)  # 1 / (1 - beta)
    assert np.mean([rare, frequent, most]) == pytest.approx(1)
