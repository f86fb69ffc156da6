"""Presets against the code that published numbers were made with.

Its probabilities lie in fixtures; see experiments/parity/protocols.py, which makes them.
"""

import pytest

from experiments.parity import protocol_cases, protocol_errors
from experiments.parity.protocol_errors import TOLERANCE


@pytest.mark.parametrize("size", protocol_cases.SEMSEG["sizes"])
def test_pspnet_ms_flip_is_semsegs_test_tool(size):
    expected = protocol_errors.fixture("semseg")["{}x{}".format(*size)]
    assert expected.max() > 0.5  # it says something
    assert protocol_errors.semseg_tool(size) <= TOLERANCE


@pytest.mark.parametrize("size", protocol_cases.WHOLE_SIZES)
def test_deeplab_v3_ms_flip_under_semsegs_conventions_is_its_test_tool(size):
    assert protocol_errors.semseg_whole(size) <= TOLERANCE


@pytest.mark.parametrize("size", protocol_cases.DEEPLAB_SIZES)
def test_deeplab_v3_ms_flip_is_the_releases_evaluation(size):
    assert protocol_errors.deeplab_release(size) <= TOLERANCE
