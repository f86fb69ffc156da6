"""Atrous and pyramid networks against fixtures of PyTorch: see experiments/parity/atrous.py."""

import pytest

from experiments.parity.atrous_nets import COUNTS, NETS
from tests.models import parity

FIXTURES = parity.Fixtures("atrous", NETS)
# One network of every backbone, also at its second size. The others take longer to compile.
AGAIN = ("resnet18", "largefov", "deeplab_v3_mobilenet_v2")


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


# Networks that take longer to trace are only in experiments/parity/atrous.md, here and below.
@pytest.mark.parametrize(
    ("label", "base", "count", "cost"), [row for row in COUNTS if "-1" not in row[0]]
)
def test_further_networks_have_the_published_number_of_parameters(label, base, count, cost):
    FIXTURES.assert_parameters(base, count, cost)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "pspnet50", "largefov", "vgg16_aspp", "mobilenet_v2"]
)
def test_multiply_adds_are_those_of_the_spec(name):
    FIXTURES.assert_multiply_adds(name)
