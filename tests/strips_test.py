"""Every operation that looks across rows, on strips, beside itself on one device."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from segjax import sharding, strips
from segjax.crf import kernels, mean_field, permutohedral
from segjax.data.spec import VOID
from segjax.models import (
    convolution,
    deconvolution,
    layers,
    lines,
    pooling,
    resize,
    row_blocks,
    unpooling,
)
from segjax.models.depthwise import depthwise
from segjax.models.features import Scores

HEIGHTS = (1, 2, 7, 8, 13, 32)
SPACES = (4,)


def beside(cases, space: int) -> tuple[list, list]:
    """(values and gradients on strips, those on one device) of pairs (function, its arrays)."""
    leaves = jax.tree.leaves

    def both(every):
        found = []
        for (fn, _), arrays in zip(cases, every, strict=True):
            value, pull = jax.vjp(fn, *arrays)
            waves = [
                jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape) for v in leaves(value)
            ]
            found += leaves(value) + leaves(
                pull(jax.tree.unflatten(jax.tree.structure(value), waves))
            )
        return found

    mesh = sharding.make_mesh(space)
    every = jax.device_put([arrays for _, arrays in cases], sharding.replicated(mesh))
    return jax.device_get((jax.jit(sharding.on(mesh, both))(every), jax.jit(both)(every)))


def assert_alike(*cases, bound: float = 1e-5) -> None:
    """Each case a function and its arrays; together they are one program."""
    for space in SPACES:
        for got, expected in zip(*beside(cases, space), strict=True):
            assert got.shape == expected.shape
            scale = np.abs(expected).max(initial=0)
            np.testing.assert_allclose(got, expected, rtol=0, atol=bound * scale)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


# (kernel, stride, dilation, pads): pooling's, dilations beyond a strip, TensorFlow's, Caffe's 100.
CONVOLUTIONS = [
    (3, 1, 1, 1),
    (3, 2, 1, 1),
    (1, 2, 1, 0),
    (7, 2, 1, 3),
    (7, 1, 1, 3),
    (3, 1, 2, 2),
    (3, 1, 12, 12),
    (4, 1, 4, 6),
    (3, 2, 1, "tf"),
    (3, 1, 1, 40),
]


def assert_windows_alike(form, window, *channels: int) -> None:
    """Of a convolution form(x, kernel, stride=, dilation=, pads=), at every height."""
    side, stride, dilation, padding = window
    cases = []
    for height in HEIGHTS:
        x, kernel = drawn(2, height, 9, max(channels[0], 3)), drawn(side, side, *channels)
        pads = convolution.pads_of(padding, x, side, stride, dilation)
        options = {"stride": stride, "dilation": dilation, "pads": pads}
        cases.append((functools.partial(form, **options), (x, kernel)))
    assert_alike(*cases)


@pytest.mark.parametrize("window", CONVOLUTIONS, ids=str)
def test_a_convolution_s_value_and_gradients_are_those_of_one_device(window):
    assert_windows_alike(convolution.convolve, window, 3, 4)


@pytest.mark.parametrize("window", [(3, 1, 1, 1), (3, 2, 1, 1), (3, 1, 4, 4), (3, 2, 1, "tf")])
def test_a_depthwise_convolution_s_value_and_gradients_are_those_of_one_device(window):
    assert_windows_alike(depthwise, window, 1, 3)


POOLINGS = {
    "2x2": layers.max_pool_2x2,
    "3x3 ceil": functools.partial(pooling.max_pool, window=3, stride=2, padding=0),
    "3x3": functools.partial(pooling.max_pool, window=3, stride=2, padding=1, rounding="floor"),
    "5x5": functools.partial(pooling.max_pool, window=5, stride=1, padding=2, rounding="floor"),
    "average": pooling.average_pool_3x3,
    "unpooled": lambda x: unpooling.unpool(*unpooling.max_pool(x)),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_a_pooling_s_value_and_gradient_are_those_of_one_device(name):
    maps = [drawn(2, height, 9, 5) for height in HEIGHTS]
    for x in maps:
        x[:, :, :4] = np.round(x[:, :, :4])  # ties: the first in reading order takes the gradient
    assert_alike(*((POOLINGS[name], (x,)) for x in maps))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("axis", [lines.DOWN, lines.ACROSS])
def test_a_line_s_value_and_gradient_are_those_of_one_device(axis, stride):
    line = lines.LineConv(3, 4, taps=7, axis=axis, use_bias=True, stride=stride, rngs=nnx.Rngs(0))
    assert_alike(*((line, (drawn(2, height, 9, 3),)) for height in HEIGHTS))


@pytest.mark.parametrize("side", [4, 6])
def test_a_transposed_convolution_s_value_and_gradient_are_those_of_one_device(side):
    up = deconvolution.LearnedUp2(3, kernel=side, mixes=True)
    cases = []
    for height in HEIGHTS:
        for start in (None, 0, 1, 3):
            first = (side - 2) // 2 if start is None else start
            rows = 2 * height + side - 2 - first
            for size in ((2 * height - 1, 17), (min(2 * height, rows), 18)):
                fn = functools.partial(up, size=size, start=start)
                cases.append((fn, (drawn(2, height, 9, 3),)))
    assert_alike(*cases)


RULES = [
    resize.Resize("half_pixel"),
    resize.Resize("corners"),
    resize.Resize("half_pixel", 4, (0.5, 0.0)),
    resize.Resize("transposed", 4, 2),
]
RESIZES = [(8, 32), (32, 8), (13, 50), (3, 64), (64, 3), (1, 30)]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_resize_s_value_and_gradient_are_those_of_one_device(rule):
    def case(before: int, after: int):
        fn = functools.partial(resize.resized, size=(after, 10), rule=rule)
        return fn, (drawn(2, before, 6, 3),)

    assert_alike(*(case(*size) for size in RESIZES))


@pytest.mark.parametrize("stride", [1, 4])
def test_row_blocks_give_what_they_give_on_one_device(stride):
    rule = resize.Resize("half_pixel", stride)

    def case(height: int, blocks: int):
        label = np.random.default_rng(0).integers(0, 3, (2, height, 12), np.uint8)

        def loss(logits, label):
            chosen = jax.nn.log_softmax(logits)[..., 0]
            return jnp.where(label == 0, chosen, 0), jnp.sum(label != VOID, dtype=jnp.float32)

        def fn(values):
            scores = Scores(values, rule)
            by_pixel, sums = row_blocks.over(loss, scores, jnp.asarray(label), blocks=blocks)
            return row_blocks.join(by_pixel, height), sums.sum()

        return fn, (drawn(2, -(-height // stride), -(-12 // stride), 3),)

    assert_alike(*(case(height, blocks) for height in (32, 33, 61) for blocks in (1, 3)))


def test_mean_field_splits_the_channels_and_gives_what_it_gives_on_one_device():
    size = (12, 16)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)

    def fn(logits):
        near = kernels.spatial(size, 3.0, by="lattice", normalization="after")
        far = kernels.bilateral(image, 20.0, 13.0, capacity=1152, normalization="symmetric")
        return mean_field.infer(logits, (far, near), (4.0, 3.0), iterations=3)

    assert_alike((fn, (drawn(192, 5),)))


def test_strips_are_seen_under_their_mesh_alone_and_not_within_shard_map():
    counts = [strips.count()]
    mesh, rows = sharding.make_mesh(4), P("data")

    def within(x):
        counts.append(strips.count())
        return x

    def under(x):
        counts.append(strips.count())
        return jax.shard_map(within, mesh=mesh, in_specs=rows, out_specs=rows)(x)

    x = jax.device_put(jnp.zeros((2, 8)), sharding.replicated(mesh))
    jax.jit(sharding.on(mesh, under))(x)
    assert counts == [1, 4, 1]


def compiled(fn, *shapes, space: int) -> jax.stages.Compiled:
    mesh = sharding.make_mesh(space, jax.devices()[:space])
    on = sharding.replicated(mesh)
    args = [jax.ShapeDtypeStruct(s, jnp.float32, sharding=on) for s in shapes]
    return jax.jit(sharding.on(mesh, fn)).lower(*args).compile()


def test_only_the_borders_that_a_window_reaches_travel():
    """Two rows from each neighbour."""

    def fn(x, kernel):
        x = strips.split(x)
        return strips.split(convolution.convolve(x, kernel, dilation=2, pads=((2, 2), (2, 2))))

    text = compiled(fn, (2, 64, 10, 4), (3, 3, 4, 4), space=4).as_text()
    assert re.findall(r"= f32\[([\d,]+)\]\S* collective-permute\(", text) == ["2,2,10,4"] * 2
    assert " all-gather(" not in text


def test_a_device_sums_a_quarter_of_the_channels_of_a_crf(monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    lattice = kernels.bilateral(image, 20.0, 13.0, capacity=6144, normalization="none").operator
    # Tables of one length, as accelerators have them.
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, default, **_: default(*args))

    def table_widths(space: int) -> set[str]:
        text = compiled(functools.partial(permutohedral.apply, lattice), (1024, 32), space=space)
        return set(re.findall(r"f32\[6145,(\d+)\]", text.as_text()))

    assert (table_widths(1), table_widths(4)) == ({"32"}, {"8"})
