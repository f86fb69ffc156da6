"""Counts of operations beside counts by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from segjax import sharding, strips
from segjax.compilers import operations
from segjax.models import convolution
from segjax.network import Network, model_of
from tests import tiny
from tests.configs_test import recipe


def products(fn, *shapes: tuple[int, ...]) -> float:
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return operations.of_traced(jax.jit(fn).trace(*args)).products


def of_network(made, classes: int, size: tuple[int, int]) -> float:
    model = model_of(made, classes)
    network = Network(*model.shapes(), model)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    scores = jax.jit(lambda network, image: network(image).values).trace(network, image)
    return operations.of_traced(scores).products


def conv(side: int, features_in: int, features: int, *size: int) -> int:
    """Of a convolution with k x k kernels and a result of H x W: 2 k k C K H W."""
    return 2 * side * side * features_in * features * size[0] * size[1]


def test_fcn8s_takes_what_its_paper_s_layers_take():
    """The release: 100 pixels around the image, poolings that round up, fc6 without a border."""
    made = recipe("fcn8s").get_config("voc2012,paper")
    height, width = 500, 375
    total, size, features, pools = 0, [height + 198, width + 198], 3, []
    for depth, wide in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(depth):
            total += conv(3, features, wide, *size)
            features = wide
        size = [-(-length // 2) for length in size]
        pools.append(size)
    top = [length - 6 for length in size]
    total += conv(7, 512, 4096, *top) + conv(1, 4096, 4096, *top) + conv(1, 4096, 21, *top)
    total += conv(1, 512, 21, *pools[3]) + conv(1, 256, 21, *pools[2])
    assert of_network(made, 21, (height, width)) == pytest.approx(total, rel=0.01)


def test_resnet50_takes_what_its_paper_s_layers_take():
    """With the stride in the 3 x 3 convolution, as in torchvision, and scores at every place."""
    made = recipe("deeplab_v3_resnet50").get_config()
    backbone = {"name": "resnet", "depth": 50, "norm": {"name": "batch"}, "stride_in": "3x3"}
    made.model = {"backbone": backbone, "head": {"name": "classifier"}, "aux": None}
    total, features, side = conv(7, 3, 64, 112, 112), 64, 56
    for stage, (blocks, wide) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for block in range(blocks):
            before = side
            if stage and not block:
                side //= 2
            total += conv(1, features, wide, before, before) + conv(3, wide, wide, side, side)
            total += conv(1, wide, 4 * wide, side, side)
            if not block:
                total += conv(1, features, 4 * wide, side, side)
            features = 4 * wide
    total += conv(1, 2048, 1000, 7, 7)
    assert of_network(made, 1000, (224, 224)) == pytest.approx(total, rel=0.01)


def test_a_gradient_takes_one_product_for_each_argument_that_it_is_taken_by():
    x, kernel = (2, 16, 12, 8), (3, 3, 8, 6)
    form = functools.partial(convolution.convolve, pads=((1, 1), (1, 1)))
    once = conv(3, 8, 6, 16, 12) * 2

    def gradient(*numbers: int):
        return jax.grad(lambda x, k: jnp.sum(form(x, k)), numbers)

    assert products(form, x, kernel) == once
    assert products(gradient(0), x, kernel) == once  # the sum's own value is not asked for
    assert products(gradient(0, 1), x, kernel) == 2 * once
    strided = functools.partial(convolution.convolve, stride=2, pads=((1, 1), (1, 1)))
    whole = jax.grad(lambda x, k: jnp.sum(strided(x, k) ** 2), (0, 1))
    assert products(whole, x, kernel) == pytest.approx(3 * products(strided, x, kernel), rel=0.15)


def test_loops_count_their_turns_and_what_nothing_needs_does_not_count():
    def looped(x, y):
        unused = y @ y @ y  # noqa: F841
        carried = jax.lax.scan(lambda carry, _: (carry @ y, None), x, None, length=7)[0]
        return jax.lax.fori_loop(0, 3, lambda _, carry: carry @ y, carried)

    assert products(looped, (4, 4), (4, 4)) == 10 * 2 * 4**3

    def unknown(x, y):
        return jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ y, x)

    shapes = [jax.ShapeDtypeStruct((4, 4), jnp.float32)] * 2
    found = operations.of_traced(jax.jit(unknown).trace(*shapes))
    assert (found.products, found.unbounded) == (2 * 4**3, 1)


def test_what_is_computed_again_counts_by_itself():
    def loss(x, y):
        return jnp.sum(jax.checkpoint(lambda x: jnp.tanh(jnp.tanh(x @ y) @ y))(x))

    shapes = [jax.ShapeDtypeStruct((4, 4), jnp.float32)] * 2
    found = operations.of_traced(jax.jit(jax.value_and_grad(loss)).trace(*shapes))
    assert found.products == 4 * 2 * 4**3
    assert 2 * 4**3 <= found.again <= 2 * 2 * 4**3


def test_work_under_shard_map_counts_for_every_device():
    mesh = sharding.make_mesh(2)

    def fn(x, y):
        rows = P("data")
        mapped = jax.shard_map(
            jnp.matmul, mesh=mesh, in_specs=(rows, P()), out_specs=rows, axis_names={"data"}
        )
        return mapped(x, y)

    assert products(fn, (8, 4), (4, 4)) == 2 * 8 * 4 * 4


def test_a_split_image_takes_what_a_whole_one_takes():
    x, kernel = (1, 32, 12, 8), (3, 3, 8, 6)
    form = functools.partial(convolution.convolve, pads=((1, 1), (1, 1)))
    on_strips = sharding.on(sharding.make_mesh(4), lambda x, k: form(strips.split(x), k))
    assert products(on_strips, x, kernel) == products(form, x, kernel)


def test_the_count_is_of_the_definition_whatever_form_a_device_takes():
    """A CPU's forms multiply less, by Winograd's tiles; they stand in the same trace."""
    training = tiny.assemble(tiny.config(), 1)
    batch = sharding.batch_shapes(training.mesh, tiny.batch(0))
    traced = training.step.trace(training.state_shapes(), batch)
    found = operations.of_traced(traced)
    forward = of_network(tiny.config(), tiny.K, tiny.SIZE)
    assert found.products == pytest.approx(3 * 8 * forward, rel=0.1)
