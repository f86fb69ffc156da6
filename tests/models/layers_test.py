import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax.models import layers
from tests import tiny

BATCH = {"name": "batch"}


def pool_by_loops(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Max over 2 x 2 windows clipped to the map, and a map of 1 at each window's first maximum."""
    batch, height, width, channels = x.shape
    out = np.zeros((batch, -(-height // 2), -(-width // 2), channels), x.dtype)
    where = np.zeros_like(x)
    for n, i, j, c in np.ndindex(out.shape):
        window = x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        down, right = np.unravel_index(window.argmax(), window.shape)
        out[n, i, j, c] = window[down, right]
        where[n, 2 * i + down, 2 * j + right, c] = 1
    return out, where


def spread(windows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Copies each window's value to its pixels: [B, h, w, C] -> [B, H, W, C]."""
    return windows.repeat(2, axis=1).repeat(2, axis=2)[:, : size[0], : size[1]]


def with_gradients(fn, *arguments) -> tuple:
    """The value of `fn`, and the gradients for a fixed cotangent."""

    @jax.jit
    def run(arguments):
        out, pull = jax.vjp(fn, *arguments)
        return out, pull(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))

    return run(arguments)


@pytest.mark.parametrize("size", [(4, 6), (5, 4), (2, 3), (7, 7), (1, 1)])
def test_pooling_is_the_maximum_of_windows_clipped_to_the_map(size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32) - 5
    expected, where = pool_by_loops(x)
    np.testing.assert_array_equal(jax.jit(layers.max_pool_2x2)(x), expected)

    cotangent = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda x: (layers.max_pool_2x2(x) * cotangent).sum()))(x)
    np.testing.assert_array_equal(gradient, where * spread(cotangent, size))


def test_the_first_of_equal_values_takes_the_gradient():
    x = np.random.default_rng(0).integers(0, 2, (2, 6, 5, 3)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda x: layers.max_pool_2x2(x).sum()))(x)
    np.testing.assert_array_equal(gradient, pool_by_loops(x)[1])


def test_pooling_keeps_the_type_and_lets_a_nan_through():
    x = jnp.zeros((1, 3, 3, 1), jnp.bfloat16)

    @jax.jit
    def pool(x):
        # In evaluation, and in training.
        return layers.max_pool_2x2(x), jax.vjp(layers.max_pool_2x2, x)[0]

    for place in ((0, 0), (0, 1), (1, 0), (1, 1)):
        for pooled in pool(x.at[(0, *place, 0)].set(jnp.nan)):
            assert pooled.dtype == jnp.bfloat16
            assert jnp.isnan(pooled[0, 0, 0, 0])
            assert not jnp.isnan(pooled[0, 1:, 1:]).any()


def test_no_window_loses_its_gradient_inside_a_larger_program():
    """The derivative of `jnp.maximum` lost some per cent of them where a fusion rounded again."""
    rngs = nnx.Rngs(params=0)
    first = layers.ConvBlock(3, 4, kernel=3, norm=BATCH, rngs=rngs)
    second = layers.ConvBlock(4, 8, kernel=3, norm=BATCH, rngs=rngs)
    graph, params, batch_stats = nnx.split((first, second), nnx.Param, nnx.BatchStat)
    params, batch_stats = tiny.awake(nnx.as_pure(params)), nnx.as_pure(batch_stats)
    x = jax.random.normal(jax.random.key(0), (8, 32, 48, 3))

    def gradient(pool):
        def loss(params, x):
            blocks, y = nnx.merge(graph, params, batch_stats), x
            for block in blocks:
                y = pool(block(y))
            return (y**2).sum(), nnx.as_pure(nnx.state(blocks, nnx.BatchStat))

        # Compiled as for users: without optimisation nothing is rounded again.
        return jax.jit(jax.grad(loss, has_aux=True), compiler_options=tiny.OPTIMISED)(params, x)[0]

    of_windows = functools.partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))
    tiny.assert_close(gradient(layers.max_pool_2x2), gradient(of_windows))


@pytest.mark.parametrize(
    ("size", "kernel", "padding"), [((9, 11), 3, 1), ((8, 9), 7, 0), ((3, 4), 7, 3), ((1, 1), 7, 3)]
)
def test_a_large_convolution_equals_xla_s_in_value_and_gradient(size, kernel, padding):
    layer = layers.Conv(
        5, 6, kernel=kernel, padding=padding, use_bias=True, rngs=nnx.Rngs(params=0)
    )
    layer.bias[...] = jnp.arange(6.0)
    x = np.random.default_rng(0).normal(size=(2, *size, 5)).astype(np.float32)
    graph, params = nnx.split(layer)

    def by_layer(x, params):
        return nnx.merge(graph, params)(x)

    def by_lax(x, params):
        out = jax.lax.conv_general_dilated(
            x,
            params["kernel"][...],
            (1, 1),
            ((padding, padding),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return out + params["bias"][...]

    tiny.assert_close(*(with_gradients(fn, x, params) for fn in (by_layer, by_lax)))


def test_the_form_is_chosen_by_the_platform_in_both_directions():
    layer = layers.Conv(3, 4, kernel=7, padding=3, use_bias=False, rngs=nnx.Rngs(params=0))
    graph, params = nnx.split(layer)

    @jax.jit
    def step(params, x):
        return jax.grad(lambda params: nnx.merge(graph, params)(x).sum())(params)

    traced = step.trace(params, jnp.zeros((1, 4, 4, 3)))
    for platform, form, other in (
        ("cpu", "dot_general", "convolution"),
        ("cuda", "convolution", "dot_general"),
        ("tpu", "convolution", "dot_general"),
    ):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert f"stablehlo.{form}" in text, platform
        assert f"stablehlo.{other}" not in text, platform


def test_a_block_has_a_bias_only_without_batch_norm():
    for norm, expected in (
        ({"name": "none"}, {"conv/kernel", "conv/bias"}),
        (BATCH, {"conv/kernel", "norm/scale", "norm/bias"}),
    ):
        block = layers.ConvBlock(3, 4, kernel=3, norm=norm, rngs=nnx.Rngs(params=0))
        names = {"/".join(path) for path, _ in nnx.to_flat_state(nnx.state(block, nnx.Param))}
        assert names == expected


def test_statistics_move_by_a_tenth_of_the_batch_and_serve_evaluation():
    block = layers.ConvBlock(3, 4, kernel=3, norm=BATCH, rngs=nnx.Rngs(params=0))
    x = jax.random.normal(jax.random.key(0), (4, 6, 7, 3))
    y = np.asarray(block.conv(x), np.float64)
    mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
    got = block(x)
    expected = np.maximum(0, (y - mean) / np.sqrt(var + 1e-5))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(block.norm.mean[...], 0.1 * mean, atol=1e-6)
    running = 0.9 + 0.1 * y.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(block.norm.var[...], running, rtol=1e-5)

    block.eval()
    expected = np.maximum(0, (y - 0.1 * mean) / np.sqrt(running + 1e-5))
    np.testing.assert_allclose(block(x), expected, atol=1e-5)


def test_kernels_are_normal_with_the_variance_of_he():
    shape = (3, 3, 128, 300)  # more than one piece
    kernel = np.asarray(layers.he_normal(jax.random.key(0), shape))
    assert kernel.shape == shape
    assert kernel.dtype == np.float32
    fan_in = 9 * 128
    assert abs(kernel.std() / np.sqrt(2 / fan_in) - 1) < 0.01
    assert abs(kernel.mean()) < 5 * kernel.std() / np.sqrt(kernel.size)
    assert len(np.unique(kernel)) > 0.9 * kernel.size  # no piece is drawn twice
    np.testing.assert_array_equal(kernel, layers.he_normal(jax.random.key(0), shape))
    assert (kernel != layers.he_normal(jax.random.key(1), shape)).mean() > 0.9
