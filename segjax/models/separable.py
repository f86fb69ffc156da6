"""Maps weighed by a matrix of rows and one of columns: resizes, means over bins, and the transpose.

The matrices depend on sizes alone, so that they are constants of a program. Most have few weights
in a row. GPUs gather what these weigh, in one pass over the map; products would copy it in another
order of its axes, in float32. Other devices take products. No form adds up in an order that varies.
"""

import jax
import jax.numpy as jnp
import numpy as np

from segjax import arrays, strips

_TAPS = 8  # the most weights in a row that are gathered one after another


def weighed(
    x: jax.Array, rows: np.ndarray, cols: np.ndarray, dtype: jax.typing.DTypeLike
) -> jax.Array:
    """rows @ x @ cols.T of every channel, with full float32 precision.

    Args:
        x: [B, h, w, C].
        rows: float32 [H, h].
        cols: float32 [W, w].
        dtype: type of the result.

    Returns:
        [B, H, W, C].
    """
    x_dtype = x.dtype

    @jax.custom_vjp
    def linear(x: jax.Array) -> jax.Array:
        return _by_device(x, rows, cols, dtype)

    def transposed(_: None, cotangent: jax.Array) -> tuple[jax.Array]:
        return (_by_device(cotangent, rows.T, cols.T, x_dtype),)

    linear.defvjp(lambda x: (linear(x), None), transposed)
    return linear(x)


def across(x: jax.Array, cols: np.ndarray | jax.Array) -> jax.Array:
    """Weighs the columns alone, by a product: float32 [B, h, w, C], [W, w] -> [B, h, W, C]."""
    return jnp.einsum("Ww,bHwc->bHWc", cols, x, precision="highest")


def _by_device(x, rows: np.ndarray, cols: np.ndarray, dtype) -> jax.Array:
    def products(x: jax.Array) -> jax.Array:
        return across(strips.product(rows, x.astype(jnp.float32)), cols).astype(dtype)

    if strips.count() > 1:
        return products(x)

    def gathers(x: jax.Array) -> jax.Array:
        return _on_gpu(x, rows, cols).astype(dtype)

    found: jax.Array = jax.lax.platform_dependent(x, cuda=gathers, rocm=gathers, default=products)
    return found


def _on_gpu(x: jax.Array, rows: np.ndarray, cols: np.ndarray) -> jax.Array:
    along, over = _taps(rows), _taps(cols)
    if along and over and len(along) * len(over) <= 4:
        return arrays.total(
            arrays.wide(x.at[:, index[:, None], other].get(mode="clip"))
            * (weight[:, None] * more)[..., None]
            for index, weight in along
            for other, more in over
        )
    x = _picked(x, 1, along) if along else _product(x, rows, "bHh,bhwc->bHwc", x.shape[:1])
    return _picked(x, 2, over) if over else _product(x, cols, "bhWw,bhwc->bhWc", x.shape[:2])


def _taps(matrix: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tap by tap, what a row of a matrix weighs and its weight, [n] each; [] if rows have many."""
    count = int((matrix != 0).sum(axis=1).max())
    if count > _TAPS:
        return []
    at = np.argsort(matrix == 0, axis=1, kind="stable")[:, : max(count, 1)].astype(np.int32)
    weights = np.take_along_axis(matrix, at, axis=1).astype(np.float32)
    return list(zip(at.T, weights.T, strict=True))


def _picked(x: jax.Array, axis: int, taps: list[tuple[np.ndarray, np.ndarray]]) -> jax.Array:
    shape = [1] * x.ndim
    shape[axis] = -1
    return arrays.total(
        arrays.wide(jnp.take(x, index, axis, mode="clip")) * weight.reshape(shape)
        for index, weight in taps
    )


def _product(x: jax.Array, matrix: np.ndarray, equation: str, batch: tuple[int, ...]) -> jax.Array:
    """A product that leaves the axes of x in their order, as every image has a matrix of its own.

    Of bfloat16 the matrix is the sum of two, one for the digits that the other has lost.
    """
    if x.dtype != jnp.bfloat16:
        matrices = jnp.broadcast_to(matrix, (*batch, *matrix.shape))
        return jnp.einsum(equation, matrices, arrays.wide(x), precision="highest")
    high = jnp.asarray(matrix, jnp.bfloat16)
    low = (matrix - high.astype(jnp.float32)).astype(jnp.bfloat16)
    both = jnp.broadcast_to(jnp.concatenate([high, low]), (*batch, 2 * len(matrix), len(matrix.T)))
    found = jnp.einsum(equation, both, x, preferred_element_type=jnp.float32)
    return arrays.total(jnp.split(found, 2, axis=len(batch)))
