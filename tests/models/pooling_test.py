import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax.errors import InputError
from segjax.models import layers, pooling
from tests import tiny

WINDOWS = (  # window, stride, padding
    (3, 2, 0),  # GoogLeNet, between stages
    (3, 1, 1),  # GoogLeNet, in its modules
    (3, 2, 1),  # DeepLab's VGG
    (2, 2, 0),
    (3, 3, 1),
    (2, 3, 0),  # windows that leave gaps
)
SIZES = ((8, 9), (7, 4), (2, 3), (1, 1), (1, 6), (5, 2))


def starts(size: int, window: int, stride: int, padding: int) -> list[int]:
    """First pixel of each window along an axis.

    Windows are added until one reaches the end of the padded map or the next would start beyond the
    map.
    """
    found = [-padding]
    while found[-1] + window < size + padding and found[-1] + stride < size:
        found.append(found[-1] + stride)
    return found


def pool_by_loops(
    x: np.ndarray, window: int, stride: int, padding: int
) -> tuple[np.ndarray, np.ndarray]:
    """Max over windows clipped to the map, and the row and column of each one's first maximum."""
    batch, height, width, channels = x.shape
    rows, cols = (starts(size, window, stride, padding) for size in (height, width))
    out = np.zeros((batch, len(rows), len(cols), channels), x.dtype)
    where = np.zeros((*out.shape, 2), int)
    for n, i, j, c in np.ndindex(out.shape):
        top, left = max(0, rows[i]), max(0, cols[j])
        part = x[n, top : rows[i] + window, left : cols[j] + window, c]
        down, right = np.unravel_index(part.argmax(), part.shape)
        out[n, i, j, c] = part[down, right]
        where[n, i, j, c] = top + down, left + right
    return out, where


def scatter(where: np.ndarray, cotangent: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The sum, for each pixel, of the cotangents of the windows whose maximum it is."""
    total = np.zeros(shape)
    for n, i, j, c in np.ndindex(cotangent.shape):
        row, col = where[n, i, j, c]
        total[n, row, col, c] += cotangent[n, i, j, c]
    return total


@functools.partial(jax.jit, static_argnames=("window", "stride", "padding"))
def with_gradient(x, cotangent, **how):
    out, pull = jax.vjp(functools.partial(pooling.max_pool, **how), x)
    return pooling.max_pool(x, **how), out, pull(cotangent)[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("window", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("ties", [False, True])
def test_pooling_is_the_maximum_of_windows_clipped_to_the_map(size, window, stride, padding, ties):
    """The first of equal values in reading order takes the gradient."""
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 0, (2, *size, 3)) if ties else rng.normal(-5, 1, (2, *size, 3))
    x = x.astype(np.float32)
    how = {"window": window, "stride": stride, "padding": padding}
    expected, where = pool_by_loops(x, **how)
    cotangent = rng.integers(1, 9, expected.shape).astype(np.float32)
    evaluated, trained, gradient = with_gradient(x, cotangent, **how)
    np.testing.assert_array_equal(evaluated, expected)
    np.testing.assert_array_equal(trained, expected)
    np.testing.assert_array_equal(gradient, scatter(where, cotangent, x.shape))


def test_sizes_are_those_of_caffe():
    def size(pixels: int, **how) -> int:
        pool = functools.partial(pooling.max_pool, **how)
        return jax.eval_shape(pool, jnp.zeros((1, pixels, 1, 1))).shape[1]

    between = {"window": 3, "stride": 2, "padding": 0}
    assert [size(n, **between) for n in (112, 56, 28, 14, 5, 4, 3, 2, 1)] == [
        56, 28, 14, 7, 2, 2, 1, 1, 1
    ]  # fmt: skip
    deeplab = {"window": 3, "stride": 2, "padding": 1}
    assert [size(n, **deeplab) for n in (321, 161, 81, 4, 1)] == [161, 81, 41, 3, 1]
    assert [size(n, window=3, stride=1, padding=1) for n in (7, 2, 1)] == [7, 2, 1]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 31, 32])
def test_rounding_down_drops_a_last_window_that_would_be_clipped(size):
    x = jax.random.normal(jax.random.key(0), (1, size, 1, 2))
    options = {"window": 3, "stride": 2, "padding": 1}
    up, down = (pooling.max_pool(x, **options, rounding=r) for r in ("ceil", "floor"))
    assert down.shape[1] == (size - 1) // 2 + 1
    np.testing.assert_array_equal(down, up[:, : down.shape[1]])
    gradient = jax.grad(lambda x: pooling.max_pool(x, **options, rounding="floor").sum())(x)
    assert gradient.shape == x.shape
    assert gradient.sum() == down.size


def test_an_unknown_rounding_is_refused():
    with pytest.raises(InputError, match="rounding: unknown 'near'; known: ceil, floor"):
        pooling.max_pool(jnp.zeros((1, 4, 4, 1)), window=3, stride=2, padding=1, rounding="near")


def test_the_mean_over_3_by_3_counts_zeros_beyond_the_border():
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(wide[:, i : i + 4, j : j + 5] for i in range(3) for j in range(3)) / 9
    np.testing.assert_allclose(pooling.average_pool_3x3(x), expected, atol=1e-6)


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 60])
def test_bins_are_means_that_cover_the_axis(size, bins):
    """PyTorch's adaptive average pooling: floor(i n / b) to ceil((i + 1) n / b)."""
    values = np.random.default_rng(0).normal(size=size)
    expected = [
        values[math.floor(i * size / bins) : math.ceil((i + 1) * size / bins)].mean()
        for i in range(bins)
    ]
    np.testing.assert_allclose(pooling.bins_matrix(size, bins) @ values, expected, atol=1e-6)


def test_pooling_keeps_the_type_and_lets_a_nan_through():
    x = jnp.zeros((1, 5, 5, 1), jnp.bfloat16).at[0, 2, 1].set(jnp.nan)
    cotangent = jnp.ones((1, 2, 2, 1), jnp.bfloat16)
    evaluated, trained, gradient = with_gradient(x, cotangent, window=3, stride=2, padding=0)
    for pooled in (evaluated, trained):
        assert pooled.dtype == jnp.bfloat16
        np.testing.assert_array_equal(jnp.isnan(pooled[0, :, :, 0]), [[True, False]] * 2)
    assert gradient.dtype == jnp.bfloat16


def test_infinities_are_pooled_like_other_numbers():
    x = np.full((1, 3, 3, 1), -np.inf, np.float32)
    pool = functools.partial(pooling.max_pool, window=3, stride=2, padding=0)
    assert pool(jnp.asarray(x))[0, 0, 0, 0] == -np.inf
    x[0, 1, 1] = np.inf
    assert pool(jnp.asarray(x))[0, 0, 0, 0] == np.inf


@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 0), (3, 1, 1)])
def test_no_window_loses_its_gradient_inside_a_larger_program(window, stride, padding):
    """The derivative of `jnp.maximum` loses some per cent of them where a fusion rounds again.

    The test is in bfloat16, where each fusion rounds.
    """
    norm, rngs = {"name": "batch"}, nnx.Rngs(params=0)
    options = {"kernel": 3, "norm": norm, "dtype": jnp.bfloat16, "rngs": rngs}
    blocks = (layers.ConvBlock(3, 4, **options), layers.ConvBlock(4, 8, **options))
    graph, params, batch_stats = nnx.split(blocks, nnx.Param, nnx.BatchStat)
    params, batch_stats = tiny.awake(nnx.as_pure(params)), nnx.as_pure(batch_stats)
    x = jax.random.normal(jax.random.key(0), (8, 32, 48, 3))

    def gradient(pool):
        def loss(params, x):
            blocks, y = nnx.merge(graph, params, batch_stats), x
            for block in blocks:
                y = pool(block(y))
            y = y.astype(jnp.float32)
            return (y**2).sum(), nnx.as_pure(nnx.state(blocks, nnx.BatchStat))

        # Compiled as for users: without optimisation nothing is rounded again.
        return jax.jit(jax.grad(loss, has_aux=True), compiler_options=tiny.OPTIMISED)(params, x)[0]

    def of_windows(x):
        more = [(n - window) % stride if not padding else 0 for n in x.shape[1:3]]
        pads = [(padding, padding + m) for m in more]
        return nnx.max_pool(x, (window, window), (stride, stride), pads)

    ours = functools.partial(pooling.max_pool, window=window, stride=stride, padding=padding)
    tiny.assert_close(gradient(ours), gradient(of_windows), bound=0.02)
