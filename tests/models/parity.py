"""Comparison of narrow networks with fixtures of PyTorch's logits.

experiments/parity/measure.py makes the fixtures; the weights are drawn again from their recipes.
"""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity import drawn, nets, our_side
from experiments.parity.origins import ORIGINS
from experiments.shared import costs, pages

TOLERANCE = 1e-4  # of the largest logit


class Fixtures:
    """The fixtures of a table of networks.

    Args:
        folder: name of their folder in tests/fixtures.
        networks: name -> network.
    """

    def __init__(self, folder: str, networks: Mapping[str, nets.Net]):
        self.folder: pathlib.Path = pages.ROOT / "tests" / "fixtures" / folder
        self.networks = networks
        self.names = [name for name, net in networks.items() if net.fixture]
        self.network = functools.cache(self._network)

    def _network(self, name: str):
        """The weights of a network, and fn(weights, size) -> largest error of each output."""
        net = self.networks[name]
        with np.load(self.folder / f"{name}.npz") as file:
            logits = dict(file)
        recipes = json.loads(str(logits.pop("recipes")))
        assert len(logits) == 2 * len(net.outputs)
        weights = {n: drawn.draw(n, drawn.Recipe(*recipe)) for n, recipe in recipes.items()}
        build = net.build(nets.DIVISOR, nets.K)
        run = our_side.network(build, ORIGINS[net.origin].preprocess, net.pooled)
        kept = () if net.pooled else (slice(None, None, 5),) * 2

        def errors(trees: Any, size: tuple[int, int]) -> list[float]:
            got = run(trees, drawn.draw_images([size], net.patch)[0])
            return [
                our_side.error(np.asarray(x)[kept], logits[f"{output} {size[0]}x{size[1]}"])
                for output, x in zip(net.outputs, got, strict=True)
            ]

        return our_side.trees(build, net.origin, weights), errors

    def error(self, name: str, place: int) -> float:
        """Largest error of a network at one of its sizes."""
        trees, errors = self.network(name)
        return max(errors(trees, self.networks[name].sizes[place]))

    def assert_depends_on_every_convolution(self, name: str) -> None:
        """Asserts that zeroing any kernel changes the logits."""
        trees, errors = self.network(name)
        leaves, structure = jax.tree_util.tree_flatten_with_path(trees)
        kernels = [i for i, (path, _) in enumerate(leaves) if path[-1].key == "kernel"]
        assert len(kernels) >= 9
        for i in kernels:
            arrays = [
                jnp.zeros_like(leaf) if i == j else leaf for j, (_, leaf) in enumerate(leaves)
            ]
            size = self.networks[name].sizes[0]
            found = errors(jax.tree_util.tree_unflatten(structure, arrays), size)
            assert max(found) > 10 * TOLERANCE, jax.tree_util.keystr(leaves[i][0])

    def assert_parameters(self, name: str, count: int | None = None, cost: Any = None) -> None:
        """Asserts the number of parameters at full width, of a network or of a variant of it."""
        net = self.networks[name]
        classes, changes = (cost.classes, cost.changes) if cost else (net.classes, None)
        count = net.parameters if count is None else count
        assert costs.parameters(net.build(1, classes, changes)) == count

    def assert_multiply_adds(self, name: str, cost: nets.Cost | None = None) -> None:
        """Asserts the number of multiply-adds, to the digits that are published."""
        net = self.networks[name]
        cost = cost or net.cost
        build = net.build(1, cost.classes, cost.changes)
        count = costs.multiply_adds(build, cost.sides(), net.pooled) / 1e9
        digits = 1 if count > 20 else 3
        assert round(count, digits) == round(cost.gmac, digits)
