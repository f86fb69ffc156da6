"""Max pooling that keeps the places of the maxima, and unpooling to these places.

Badrinarayanan, Kendall, Cipolla: SegNet, PAMI 2017, section 3. A place within 2 x 2 takes two bits;
four channels share a byte. Comparisons with the place replace gathers and scatters.
"""

import flax.struct
import jax
import jax.numpy as jnp

from segjax import arrays, strips
from segjax.arrays import Size
from segjax.models import layers

_SHIFTS = (0, 2, 4, 6)


@flax.struct.dataclass
class Selection:
    """The places of the maxima that `max_pool` chose.

    Attributes:
        packed: uint8 [B, ceil(H/2), ceil(W/2), ceil(C/4)]: bits 2k and 2k + 1 of byte c hold the
            place for channel 4c + k, 0 to 3 in reading order.
        size: H and W before pooling.
        channels: C.
    """

    packed: jax.Array
    size: Size = flax.struct.field(pytree_node=False)
    channels: int = flax.struct.field(pytree_node=False)


def max_pool(x: jax.Array) -> tuple[jax.Array, Selection]:
    """Max over 2 x 2, stride 2, rounding up as Caffe does, and the places of the maxima.

    Of equal values, the first in reading order is chosen.

    Args:
        x: [B, H, W, C].

    Returns:
        The maxima, [B, ceil(H/2), ceil(W/2), C], and their places.
    """
    pooled, packed = strips.pairs(_pool, layers.to_even(x), float(jnp.finfo(x.dtype).min))
    return pooled, Selection(packed, arrays.map_size(x), x.shape[3])


def unpool(x: jax.Array, selection: Selection) -> jax.Array:
    """Writes values to the selected places, zeros elsewhere: [B, h, w, C] -> [B, H, W, C]."""
    height, width = selection.size

    def of_rows(kept: tuple[jax.Array, jax.Array]) -> jax.Array:
        packed, x = kept
        return layers.to_corners(_unpack(packed, selection.channels), x)

    unpooled: jax.Array = strips.each(of_rows, (selection.packed, x), height)[:, :, :width]
    return unpooled


@jax.custom_vjp
def _pool(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _forward(x)[0]


def _forward(x):
    best, winner = layers.first_best(x)
    # Computed once: two programs that round differently could choose two corners.
    packed = jax.lax.optimization_barrier(_pack(winner))
    # The empty array carries the number of channels to the backward pass.
    return (best, packed), (packed, jnp.zeros((x.shape[3], 0)))


def _backward(kept, cotangents):
    packed, channels = kept
    return (layers.to_corners(_unpack(packed, channels.shape[0]), cotangents[0]),)


_pool.defvjp(_forward, _backward)


def _pack(winner: jax.Array) -> jax.Array:
    """Packs four channels into a byte: uint8 [..., C], 0 to 3 -> uint8 [..., ceil(C/4)]."""
    fill = [(0, 0)] * (winner.ndim - 1) + [(0, -winner.shape[-1] % 4)]
    groups = jnp.pad(winner, fill).reshape(*winner.shape[:-1], -1, 4)
    return sum(groups[..., k] << jnp.uint8(shift) for k, shift in enumerate(_SHIFTS))


def _unpack(packed: jax.Array, channels: int) -> jax.Array:
    """The inverse of `_pack`."""
    winner = packed[..., None] >> jnp.array(_SHIFTS, jnp.uint8) & jnp.uint8(3)
    return winner.reshape(*packed.shape[:-1], -1)[..., :channels]
