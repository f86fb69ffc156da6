"""Atrous and pyramid networks against PyTorch: see experiments/parity/atrous.py."""

import pytest

from experiments.parity.atrous_nets import COUNTS, NETS
from tests.models import parity

FIXTURES = parity.Fixtures("atrous", NETS)
# At their second size, too: of every backbone one. The others take longer to compile.
AGAIN = ("resnet18", "largefov", "deeplab_v3_mobilenet_v2")


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


# What takes longer to trace is in experiments/parity/atrous.md alone, here and below.
@pytest.mark.parametrize(
    ("label", "base", "count", "cost"), [row for row in COUNTS if "-1" not in row[0]]
)
def test_so_have_further_networks(label, base, count, cost):
    FIXTURES.assert_parameters(base, count, cost)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "pspnet50", "largefov", "vgg16_aspp", "mobilenet_v2"]
)
def test_it_multiplies_as_often_as_the_spec_says(name):
    FIXTURES.assert_multiply_adds(name)
