"""The sizes of arrays of images and maps, and their sum."""

from collections.abc import Iterable
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

Size = tuple[int, int]
"""Height and width in pixels."""


class Shaped(Protocol):
    """An array of numpy or jax, or what stands for one (`jax.ShapeDtypeStruct`)."""

    @property
    def shape(self) -> Any:
        """The length of every axis."""


def image_size(x: Shaped) -> Size:
    """H and W of [H, W, ...]."""
    height, width = x.shape[:2]
    return height, width


def map_size(x: Shaped) -> Size:
    """H and W of [B, H, W, ...]."""
    height, width = x.shape[1:3]
    return height, width


def round_up(n: int, multiple: int) -> int:
    """The least multiple that is no smaller than n."""
    return -(-n // multiple) * multiple


def total(parts: Iterable[jax.Array | np.ndarray]) -> jax.Array:
    """The sum of one array or more, at least one of them jax's."""
    return cast(jax.Array, sum(parts))  # without parts it would be 0


def wide(x: jax.Array) -> jax.Array:
    """x in float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def read_again(x: jax.Array) -> jax.Array:
    """x, as an array that XLA:GPU knows nothing of: what is computed from it is not kept for it.

    Else the compiler merges equal expressions of the forward and the backward pass, and writes down
    a map that costs nothing to compute where x is read anyway. Other compilers weigh that better.
    """
    barrier = jax.lax.optimization_barrier
    found: jax.Array = jax.lax.platform_dependent(
        x, cuda=barrier, rocm=barrier, default=lambda x: x
    )
    return found
