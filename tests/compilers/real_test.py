"""The compilers of chips, where one is installed: what they make of small programs."""

import importlib.util

import pytest

from tests import programs

WITHOUT = {
    chip: pytest.mark.skipif(
        not importlib.util.find_spec(package), reason=f"{package} is not installed"
    )
    for chip, package in (("v5e", "libtpu"), ("h200", "jax_cuda12_plugin"))
}
CHIPS = [pytest.param(chip, marks=mark) for chip, mark in WITHOUT.items()]


@pytest.mark.parametrize("chip", CHIPS)
def test_a_budget_compiles_both_steps_for_a_chip_that_is_not_here(chip):
    done = programs.verb(
        "budget",
        "--config=fcn8s:smoke",
        "--config.dtype=bfloat16",
        f"--chip={chip}",
        "--nosearch",
        JAX_PLATFORMS="",  # as users have it
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "pip install" not in done.stdout
    assert f"1 x {chip}" in done.stdout


BLOCKS = """
import jax, jax.numpy as jnp
from segjax.compilers import optimised, targets
from segjax.models import functional, layers

target = targets.target("h200", "")
place = jax.sharding.SingleDeviceSharding(target.devices[0])

def build(rngs):
    return layers.ConvBlock(
        64, 64, kernel=3, norm={"name": "batch"}, dtype=jnp.bfloat16, rngs=rngs
    )

graph, arrays = functional.graphs(build).training, functional.initial_arrays(build, 0)

def loss(params, stats, x):
    for _ in range(4):
        x = functional.merge(graph, params, stats)(x)
    return jnp.sum(x.astype(jnp.float32) ** 2)

placed = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
shapes = jax.tree.map(placed, arrays)
x = jax.ShapeDtypeStruct((8, 90, 120, 64), jnp.bfloat16, sharding=place)
compiled = jax.jit(jax.grad(loss)).lower(*shapes, x).compile(dict(target.options))
moved = optimised.traffic(compiled.as_text()).bytes
print("MAPS", moved / (4 * 2 * x.size))
"""


@WITHOUT["h200"]
def test_a_convolution_with_norm_and_relu_moves_few_maps_on_a_gpu():
    """Maps read and written, a block: 13.6; 14.9 by the derivatives of the formulas (2bdc7bf)."""
    done = programs.script(BLOCKS)
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("MAPS"))
    assert float(line.split()[1]) < 14.2
