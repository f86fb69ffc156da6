"""RefineNet, GCN and SegNet against fixtures of PyTorch: see experiments/parity/decoders.py."""

import pytest

from experiments.parity import decoder_nets
from experiments.parity.decoder_nets import COUNTS, NETS
from tests.models import parity

FIXTURES = parity.Fixtures("decoders", NETS)
AGAIN = ("segnet_basic",)  # also at its second size; the others take longer to compile
# Networks that take longer to trace are only in experiments/parity/decoders.md.
SHALLOW = [row for row in COUNTS if not row[0].startswith(("RefineNet-1", "GCN on ResNet-1"))]
MULTIPLIED = ("gcn_resnet50_paper", "segnet", "segnet_basic")


@pytest.mark.parametrize(
    ("name", "place"), [(name, 0) for name in FIXTURES.names] + [(name, 1) for name in AGAIN]
)
def test_logits_equal_pytorch_s(name, place):
    assert FIXTURES.error(name, place) <= parity.TOLERANCE


@pytest.mark.parametrize("name", FIXTURES.names)
def test_the_logits_of_the_fixture_depend_on_every_convolution(name):
    FIXTURES.assert_depends_on_every_convolution(name)


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if net.parameters])
def test_every_network_has_the_published_number_of_parameters(name):
    FIXTURES.assert_parameters(name)


@pytest.mark.parametrize(("label", "base", "count", "cost"), SHALLOW)
def test_further_networks_have_the_published_number_of_parameters(label, base, count, cost):
    FIXTURES.assert_parameters(base, count, cost)


@pytest.mark.parametrize(("taps", "thousands"), decoder_nets.BLOCKS.items())
def test_a_global_convolution_has_the_paper_s_number_of_parameters(taps, thousands):
    assert decoder_nets.block_parameters(taps) // 1000 == thousands


@pytest.mark.parametrize("name", MULTIPLIED)
def test_multiply_adds_are_those_of_the_spec(name):
    FIXTURES.assert_multiply_adds(name)
