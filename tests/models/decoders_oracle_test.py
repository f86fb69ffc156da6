"""RefineNet, GCN and SegNet against PyTorch: see experiments/parity/decoders.py."""

import pytest

from experiments.parity import decoder_nets
from experiments.parity.decoder_nets import COUNTS, NETS
from tests.models import parity

FIXTURES = parity.Fixtures("decoders", NETS)
AGAIN = ("segnet_basic",)  # at its second size, too; the others take longer to compile
# What takes longer to trace is in experiments/parity/decoders.md alone.
SHALLOW = [row for row in COUNTS if not row[0].startswith(("RefineNet-1", "GCN on ResNet-1"))]
MULTIPLIED = ("gcn_resnet50_paper", "segnet", "segnet_basic")


@pytest.mark.parametrize(
    ("name", "place"), [(name, 0) for name in FIXTURES.names] + [(name, 1) for name in AGAIN]
)
def test_the_logits_are_those_of_pytorch(name, place):
    assert FIXTURES.error(name, place) <= parity.TOLERANCE


@pytest.mark.parametrize("name", FIXTURES.names)
def test_the_logits_of_the_fixture_depend_on_every_convolution(name):
    FIXTURES.assert_depends_on_every_convolution(name)


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if net.parameters])
def test_every_network_has_the_parameters_that_are_said_of_it(name):
    FIXTURES.assert_parameters(name)


@pytest.mark.parametrize(("label", "base", "count", "cost"), SHALLOW)
def test_so_have_further_networks(label, base, count, cost):
    FIXTURES.assert_parameters(base, count, cost)


@pytest.mark.parametrize(("taps", "thousands"), decoder_nets.BLOCKS.items())
def test_a_global_convolution_is_as_large_as_the_paper_says(taps, thousands):
    assert decoder_nets.block_parameters(taps) // 1000 == thousands


@pytest.mark.parametrize("name", MULTIPLIED)
def test_it_multiplies_as_often_as_the_spec_says(name):
    FIXTURES.assert_multiply_adds(name)
