"""Atrous and pyramid networks against PyTorch, whose logits lie in fixtures.

See experiments/parity/atrous.py, which makes them; weights are drawn again from their recipes.
"""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.parity import atrous_nets, common
from experiments.parity.atrous_nets import NETS
from segjax.models import weights

FIXTURES = common.ROOT / "tests" / "fixtures" / "atrous"
TOLERANCE = 1e-4  # of the largest logit
NAMES = [name for name, net in NETS.items() if net.fixture]
# At their second size, too: of every backbone one. The others take longer to compile.
AGAIN = ("resnet18", "largefov", "deeplab_v3_mobilenet_v2")


@functools.cache
def network(name: str):
    """Its weights in our trees, and fn(trees, size) -> largest error of each output."""
    net = NETS[name]
    with np.load(FIXTURES / f"{name}.npz") as file:
        logits = dict(file)
    recipes = json.loads(str(logits.pop("recipes")))
    assert len(logits) == 2 * len(net.outputs)
    drawn = {n: common.draw(n, common.Recipe(*recipe)) for n, recipe in recipes.items()}
    build = net.build(atrous_nets.DIVISOR, atrous_nets.K)
    run = common.network(build, weights.ORIGINS[net.origin].preprocess, net.pooled)
    kept = () if net.pooled else (slice(None, None, 5),) * 2

    def errors(trees: Any, size: tuple[int, int]) -> list[float]:
        got = run(trees, common.draw_images([size])[0])
        return [
            common.error(np.asarray(x)[kept], logits[f"{output} {size[0]}x{size[1]}"])
            for output, x in zip(net.outputs, got, strict=True)
        ]

    return common.trees(build, net.origin, drawn), errors


@pytest.mark.parametrize(
    ("name", "place"), [(name, 0) for name in NAMES] + [(name, 1) for name in AGAIN]
)
def test_the_logits_are_those_of_pytorch(name, place):
    trees, errors = network(name)
    assert max(errors(trees, NETS[name].sizes[place])) <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_the_logits_of_the_fixture_depend_on_every_convolution(name):
    trees, errors = network(name)
    leaves, structure = jax.tree_util.tree_flatten_with_path(trees)
    kernels = [i for i, (path, _) in enumerate(leaves) if path[-1].key == "kernel"]
    assert len(kernels) >= 16
    for i in kernels:
        arrays = [jnp.zeros_like(leaf) if i == j else leaf for j, (_, leaf) in enumerate(leaves)]
        found = errors(jax.tree_util.tree_unflatten(structure, arrays), NETS[name].sizes[0])
        assert max(found) > 10 * TOLERANCE, jax.tree_util.keystr(leaves[i][0])


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if net.parameters])
def test_every_network_has_the_parameters_that_are_said_of_it(name):
    net = NETS[name]
    assert common.parameters(net.build(1, net.classes)) == net.parameters


# What takes longer to trace is in experiments/parity/atrous.md alone, here and below.
@pytest.mark.parametrize(
    ("name", "base", "count", "cost"), [row for row in atrous_nets.COUNTS if "-1" not in row[0]]
)
def test_so_have_further_networks(name, base, count, cost):
    assert common.parameters(NETS[base].build(1, cost.classes, cost.changes)) == count, name


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "pspnet50", "largefov", "vgg16_aspp", "mobilenet_v2"]
)
def test_it_multiplies_as_often_as_the_spec_says(name):
    net, cost = NETS[name], NETS[name].cost
    build = net.build(1, cost.classes, cost.changes)
    count = common.multiply_adds(build, (cost.size, cost.size), net.pooled) / 1e9
    digits = 1 if count > 20 else 3
    assert round(count, digits) == round(cost.gmac, digits)
