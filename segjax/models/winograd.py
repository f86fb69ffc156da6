"""3 x 3 convolutions as matrix products of transformed tiles, with fewer multiplications.

Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, CVPR 2016. A tile of 4 x 4 outputs
takes 36 multiplications instead of 144. This form is for XLA:CPU: it works on blocks of rows of
tiles whose frequencies fit the cache; without blocks, large maps are three times slower.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

TILE = 4  # side of a tile of outputs
_STEP = TILE + 2  # side of a tile of inputs and of its frequencies
_BLOCK = 1 << 21  # numbers in the frequencies of a block, 8 MiB

# With these points the error is at most three times that of the plain product. The usual points,
# 0, +-1, +-2, lose one digit more.
_POINTS = (0.0, *(sign * math.sqrt(v) for v in (0.5, 2) for sign in (1, -1)))


def convolve(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """3 x 3 convolution of stride 1 by tiles, computed in float32.

    [B, H, W, C], [3, 3, C, K] -> [B, H + 2 padding - 2, W + 2 padding - 2, K] of the type of x. A
    padding below 0 crops rows and columns.
    """
    batch, (height, width), features = x.shape[0], _size(x, padding), kernel.shape[-1]
    _, to_kernel, to_output = _matrices()
    weights = np.kron(to_kernel, to_kernel) @ _columns_first(kernel).reshape(9, -1)
    weights = weights.reshape(-1, *kernel.shape[2:])
    count, blocks = _blocks(x, kernel.shape, padding)
    padded = _padded(x, padding, count * blocks)

    def rows(start: jax.Array | int) -> jax.Array:
        y = jnp.einsum("ftc,fck->ftk", _frequencies(padded, start, count), weights)
        y = y.reshape(_STEP, _STEP, batch, count, -1, features)
        y = jnp.stack(_combine(to_output, y), axis=4)
        y = jnp.stack(_combine(to_output, y), axis=2)
        return y.reshape(batch, count * TILE, -1, features)

    if blocks == 1:
        y = rows(0)
    else:
        y = jax.lax.map(rows, count * jnp.arange(blocks)).swapaxes(0, 1)
        y = y.reshape(batch, -1, *y.shape[3:])
    return y[:, :height, :width].astype(x.dtype)


def kernel_gradient(x: jax.Array, cotangent: jax.Array, padding: int) -> jax.Array:
    """The gradient of `convolve` by the kernel: float32 [3, 3, C, K].

    Args:
        x: [B, H, W, C], the input of `convolve`.
        cotangent: [B, H + 2 padding - 2, W + 2 padding - 2, K], the gradient by its result.
        padding: that of `convolve`.
    """
    height, width, features = cotangent.shape[1:]
    _, to_kernel, to_output = _matrices()
    shape = (3, 3, x.shape[-1], features)
    count, blocks = _blocks(x, shape, padding)
    padded = _padded(x, padding, count * blocks)
    down, right = count * blocks * TILE - height, -width % TILE
    cotangent = jnp.pad(cotangent, ((0, 0), (0, down), (0, right), (0, 0)))
    cotangent = cotangent.reshape(x.shape[0], count * blocks, TILE, -1, features)

    def rows(start: jax.Array | int) -> jax.Array:
        y = jax.lax.dynamic_slice_in_dim(cotangent, start, count, axis=1).astype(jnp.float32)
        y = jnp.stack(_combine(to_output.T, [y[:, :, i] for i in range(TILE)]))
        y = y.reshape(*y.shape[:3], -1, TILE, features)
        y = jnp.stack(_combine(to_output.T, [y[..., j, :] for j in range(TILE)]))
        y = y.reshape(_STEP * _STEP, -1, features)
        return jnp.einsum("ftc,ftk->fck", _frequencies(padded, start, count), y)

    def add(total, start):
        return total + rows(start), None

    if blocks == 1:
        weights = rows(0)
    else:
        zeros = jnp.zeros((_STEP * _STEP, *shape[2:]))
        weights = jax.lax.scan(add, zeros, count * jnp.arange(blocks))[0]
    kernel = jnp.matmul(np.kron(to_kernel, to_kernel).T, weights.reshape(_STEP * _STEP, -1))
    return _columns_first(kernel.reshape(shape))


def _size(x: jax.Array, padding: int) -> tuple[int, int]:
    """Height and width of the result."""
    return x.shape[1] + 2 * padding - 2, x.shape[2] + 2 * padding - 2


def _blocks(x: jax.Array, kernel_shape: tuple[int, ...], padding: int) -> tuple[int, int]:
    """The number of rows of tiles in a block, and the number of blocks.

    A block has about `_BLOCK` numbers, and more if it would otherwise be smaller than the kernel's
    frequencies, which every block reads. Among the counts that fit, the one that fills the last
    block best is taken.
    """
    height, width = _size(x, padding)
    tall, wide = -(-height // TILE), -(-width // TILE)
    features_in, features = kernel_shape[2:]
    both = features_in + features
    tiles = max(_BLOCK // (_STEP * _STEP), features_in * features) // both
    least = max(1, tiles // (x.shape[0] * wide))
    if least >= tall:
        return tall, 1
    count = min(range(least, 2 * least), key=lambda count: -tall % count)
    return count, -(-tall // count)


def _padded(x: jax.Array, padding: int, tall: int) -> jax.Array:
    """x with its border, padded to whole tiles and to `tall` rows of them."""
    height, width = _size(x, padding)
    fill = (tall * TILE - height, -width % TILE)
    pads = ((0, 0, 0), *((padding, padding + n, 0) for n in fill), (0, 0, 0))
    return jax.lax.pad(x, jnp.zeros((), x.dtype), pads)


def _frequencies(padded: jax.Array, start: jax.Array | int, count: int) -> jax.Array:
    """`count` rows of overlapping tiles from row `start` on, transformed: float32 [36, tiles, C].

    The frequencies of the columns come first, as everywhere in this module.
    """
    x = jax.lax.dynamic_slice_in_dim(padded, start * TILE, count * TILE + 2, axis=1)
    x = x.astype(jnp.float32)
    to_data = _matrices()[0]
    y = jnp.stack(_combine(to_data, [x[:, i : i - _STEP + 1 or None : TILE] for i in range(_STEP)]))
    parts = [y[..., j : j - _STEP + 1 or None : TILE, :] for j in range(_STEP)]
    return jnp.stack(_combine(to_data, parts)).reshape(_STEP * _STEP, -1, x.shape[-1])


def _columns_first(kernel: jax.Array) -> jax.Array:
    return kernel.astype(jnp.float32).swapaxes(0, 1)


def _combine(matrix: np.ndarray, parts) -> list[jax.Array]:
    """The product of a matrix and a list of arrays; zeros of the matrix cost nothing."""
    return [
        sum(factor * part for factor, part in zip(row, parts, strict=True) if factor)
        for row in matrix
    ]


@functools.cache
def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Transforms of the data [6, 6], of the kernel [6, 3] and to the output [4, 6]: float32.

    Toom and Cook: a row of data is a polynomial, which is evaluated at the points and at infinity,
    multiplied there, and interpolated.
    """
    others = [[q for q in _POINTS if q != p] for p in _POINTS]
    to_data = np.zeros((_STEP, _STEP))
    for row, roots in zip(to_data, [*others, _POINTS], strict=True):
        row[: len(roots) + 1] = np.poly(roots)[::-1]
    to_kernel = np.zeros((_STEP, 3))
    powers = np.power.outer(_POINTS, np.arange(TILE))
    to_kernel[:-1] = powers[:, :3]
    to_kernel[:-1] /= np.prod(np.subtract(np.array(_POINTS)[:, None], others), axis=1)[:, None]
    to_output = np.zeros((TILE, _STEP))
    to_output[:, :-1] = powers.T
    to_kernel[-1, -1] = to_output[-1, -1] = 1
    # Opposite points cancel in every second coefficient, except for rounding errors.
    data, kernel, output = (
        np.where(np.abs(m) < 1e-12, 0, m).astype(np.float32)
        for m in (to_data, to_kernel, to_output)
    )
    return data, kernel, output
