"""Pooling with selections and unpooling, against numpy's loops and torch's MaxUnpool2d."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import layers, unpooling

SIZES = [(4, 6), (5, 7), (1, 1), (1, 8), (45, 60)]


def values(size, channels=6, seed=0) -> np.ndarray:
    """Random small whole numbers, so that most windows have ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(-2, 3, (2, *size, channels)).astype(np.float32)


def by_loops(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pooled values, and the unpooled ones."""
    batch, height, width, channels = x.shape
    pooled = np.zeros((batch, -(-height // 2), -(-width // 2), channels), np.float32)
    back = np.zeros_like(x)
    for b, i, j, c in np.ndindex(*pooled.shape):
        window = x[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        down, right = np.unravel_index(window.argmax(), window.shape)  # the first of equal ones
        pooled[b, i, j, c] = window[down, right]
        back[b, 2 * i + down, 2 * j + right, c] = window[down, right]
    return pooled, back


@pytest.mark.parametrize("size", SIZES)
def test_unpooling_puts_values_back_where_they_were(size):
    x = values(size)
    pooled, selection = unpooling.max_pool(jnp.asarray(x))
    expected, back = by_loops(x)
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_array_equal(pooled, layers.max_pool_2x2(x))
    np.testing.assert_array_equal(unpooling.unpool(pooled, selection), back)
    assert selection.packed.dtype == jnp.uint8
    assert selection.packed.shape == (*pooled.shape[:3], 2)


@pytest.mark.parametrize("channels", [1, 3, 4, 9])
def test_any_number_of_channels_is_packed(channels):
    winner = np.random.default_rng(0).integers(0, 4, (2, 3, 5, channels), np.uint8)
    packed = unpooling._pack(jnp.asarray(winner))
    assert packed.shape[-1] == -(-channels // 4)
    np.testing.assert_array_equal(unpooling._unpack(packed, channels), winner)


def test_gradients_follow_the_places():
    x = values((5, 7), seed=1)
    rng = np.random.default_rng(2)
    weight = rng.normal(size=x.shape).astype(np.float32)
    other = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)

    def loss(x, other):
        pooled, selection = unpooling.max_pool(x)
        return jnp.sum(weight * unpooling.unpool(pooled * other, selection))

    of_x, of_other = jax.jit(jax.grad(loss, (0, 1)))(x, other)
    chosen = by_loops(x)[1] * 0 + (by_loops(np.where(x == 0, 1e-3, x))[1] != 0)
    pooled = by_loops(x)[0]
    up = other.repeat(2, 1).repeat(2, 2)[:, :5, :7]
    np.testing.assert_allclose(of_x, np.where(chosen, weight * up, 0), rtol=1e-5)
    padded = np.pad(np.where(chosen, weight, 0), ((0, 0), (0, 1), (0, 1), (0, 0)))
    sums = padded.reshape(2, 3, 2, 4, 2, 6).sum((2, 4))
    np.testing.assert_allclose(of_other, pooled * sums, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_unpooling_equals_torchs(size):
    torch = pytest.importorskip("torch")
    x = values(size, seed=3)
    pool = torch.nn.MaxPool2d(2, 2, ceil_mode=True, return_indices=True)
    theirs, indices = pool(torch.from_numpy(x).permute(0, 3, 1, 2))
    back = torch.nn.MaxUnpool2d(2, 2)(theirs, indices, output_size=size).permute(0, 2, 3, 1)
    pooled, selection = unpooling.max_pool(jnp.asarray(x))
    np.testing.assert_array_equal(unpooling.unpool(pooled, selection), back.numpy())


def test_selections_take_a_sixteenth_of_the_memory_of_indices():
    x = jax.ShapeDtypeStruct((1, 360, 480, 64), jnp.float32)
    selection = jax.eval_shape(unpooling.max_pool, x)[1]
    assert 16 * selection.packed.size == 4 * 180 * 240 * 64
