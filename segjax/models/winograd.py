"""3 x 3 convolutions as products of tiles: fewer multiplications, and matrix products throughout.

Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, CVPR 2016. A tile of 4 x 4 outputs
takes 36 multiplications for 144. Made for XLA:CPU: the tiles are worked off in blocks of rows whose
frequencies stay in the cache; without blocks, large maps are three times slower.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

TILE = 4  # outputs a side
_STEP = TILE + 2  # inputs a side, and frequencies
_BLOCK = 1 << 21  # numbers in the frequencies of a block, 8 MiB

# The usual points, 0, +-1, +-2, lose a digit more than these: with them the error is within three
# times that of the plain product.
_POINTS = (0.0, *(sign * math.sqrt(v) for v in (0.5, 2) for sign in (1, -1)))


def convolve(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """[B, H, W, C], [3, 3, C, K] -> [B, H + 2 padding - 2, W + 2 padding - 2, K].

    Computed in float32. A padding below 0 takes rows and columns away.
    """
    batch, (height, width), features = x.shape[0], _size(x, padding), kernel.shape[-1]
    _, of_kernel, of_output = _matrices()
    weights = np.kron(of_kernel, of_kernel) @ _columns_first(kernel).reshape(9, -1)
    weights = weights.reshape(-1, *kernel.shape[2:])
    count, blocks = _blocks(x, kernel.shape, padding)
    padded = _padded(x, padding, count * blocks)

    def rows(start: jax.Array | int) -> jax.Array:
        y = jnp.einsum("ftc,fck->ftk", _frequencies(padded, start, count), weights)
        y = y.reshape(_STEP, _STEP, batch, count, -1, features)
        y = jnp.stack(_combine(of_output, y), axis=4)
        y = jnp.stack(_combine(of_output, y), axis=2)
        return y.reshape(batch, count * TILE, -1, features)

    if blocks == 1:
        y = rows(0)
    else:
        y = jax.lax.map(rows, count * jnp.arange(blocks)).swapaxes(0, 1)
        y = y.reshape(batch, -1, *y.shape[3:])
    return y[:, :height, :width].astype(x.dtype)


def kernel_gradient(x: jax.Array, cotangent: jax.Array, padding: int) -> jax.Array:
    """What `convolve` gives the kernel on the way back: float32 [3, 3, C, K]."""
    height, width, features = cotangent.shape[1:]
    _, of_kernel, of_output = _matrices()
    shape = (3, 3, x.shape[-1], features)
    count, blocks = _blocks(x, shape, padding)
    padded = _padded(x, padding, count * blocks)
    down, right = count * blocks * TILE - height, -width % TILE
    cotangent = jnp.pad(cotangent, ((0, 0), (0, down), (0, right), (0, 0)))
    cotangent = cotangent.reshape(x.shape[0], count * blocks, TILE, -1, features)

    def rows(start: jax.Array | int) -> jax.Array:
        y = jax.lax.dynamic_slice_in_dim(cotangent, start, count, axis=1).astype(jnp.float32)
        y = jnp.stack(_combine(of_output.T, [y[:, :, i] for i in range(TILE)]))
        y = y.reshape(*y.shape[:3], -1, TILE, features)
        y = jnp.stack(_combine(of_output.T, [y[..., j, :] for j in range(TILE)]))
        y = y.reshape(_STEP * _STEP, -1, features)
        return jnp.einsum("ftc,ftk->fck", _frequencies(padded, start, count), y)

    def add(total, start):
        return total + rows(start), None

    if blocks == 1:
        weights = rows(0)
    else:
        zeros = jnp.zeros((_STEP * _STEP, *shape[2:]))
        weights = jax.lax.scan(add, zeros, count * jnp.arange(blocks))[0]
    kernel = np.kron(of_kernel, of_kernel).T @ weights.reshape(_STEP * _STEP, -1)
    return _columns_first(kernel.reshape(shape))


def _size(x: jax.Array, padding: int) -> tuple[int, int]:
    return x.shape[1] + 2 * padding - 2, x.shape[2] + 2 * padding - 2


def _blocks(x: jax.Array, kernel_shape: tuple[int, ...], padding: int) -> tuple[int, int]:
    """Rows of tiles in a block, and blocks.

    A block has `_BLOCK` numbers; but not so few that reading the kernel's frequencies, once a
    block, outweighs them. Of the counts that fit, the one that fills the last block best.
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
    """x with its border, filled up to whole tiles, `tall` rows of them."""
    height, width = _size(x, padding)
    fill = (tall * TILE - height, -width % TILE)
    pads = ((0, 0, 0), *((padding, padding + n, 0) for n in fill), (0, 0, 0))
    return jax.lax.pad(x, jnp.zeros((), x.dtype), pads)


def _frequencies(padded: jax.Array, start: jax.Array | int, count: int) -> jax.Array:
    """`count` rows of overlapping tiles from `start` on, transformed: float32 [36, tiles, C].

    Frequencies run over columns first, as everywhere here.
    """
    x = jax.lax.dynamic_slice_in_dim(padded, start * TILE, count * TILE + 2, axis=1)
    x = x.astype(jnp.float32)
    of_data = _matrices()[0]
    y = jnp.stack(_combine(of_data, [x[:, i : i - _STEP + 1 or None : TILE] for i in range(_STEP)]))
    parts = [y[..., j : j - _STEP + 1 or None : TILE, :] for j in range(_STEP)]
    return jnp.stack(_combine(of_data, parts)).reshape(_STEP * _STEP, -1, x.shape[-1])


def _columns_first(kernel: jax.Array) -> jax.Array:
    return kernel.astype(jnp.float32).swapaxes(0, 1)


def _combine(matrix: np.ndarray, parts) -> list[jax.Array]:
    """`matrix` times a list of arrays; a zero costs nothing."""
    return [
        sum(factor * part for factor, part in zip(row, parts, strict=True) if factor)
        for row in matrix
    ]


@functools.cache
def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32 transforms of data [6, 6], of the kernel [6, 3], and to the output [4, 6].

    Toom and Cook: a row of data is a polynomial; it is evaluated at the points and at infinity,
    multiplied there, and interpolated.
    """
    others = [[q for q in _POINTS if q != p] for p in _POINTS]
    of_data = np.zeros((_STEP, _STEP))
    for row, roots in zip(of_data, [*others, _POINTS], strict=True):
        row[: len(roots) + 1] = np.poly(roots)[::-1]
    of_kernel = np.zeros((_STEP, 3))
    powers = np.power.outer(_POINTS, np.arange(TILE))
    of_kernel[:-1] = powers[:, :3]
    of_kernel[:-1] /= np.prod(np.subtract(np.array(_POINTS)[:, None], others), axis=1)[:, None]
    of_output = np.zeros((TILE, _STEP))
    of_output[:, :-1] = powers.T
    of_kernel[-1, -1] = of_output[-1, -1] = 1
    # Opposite points cancel in every second coefficient, but for rounding.
    return tuple(
        np.where(np.abs(m) < 1e-12, 0, m).astype(np.float32)
        for m in (of_data, of_kernel, of_output)
    )
