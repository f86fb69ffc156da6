"""Connected regions: each label keeps the piece around its seed; other pixels join a neighbour.

Label maps are stored as bit planes with 32 pixels per word: a step of a flood over the whole image
takes a few operations on a few thousand words, without gather or scatter. The pixels of a word lie
one slab apart along the first axis, so that packing and stepping work on whole rows.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from segjax.classical import barriers

_WORD = 32
_STRIDE = 8  # steps between two checks for changes


def connect(labels: jax.Array, cost: jax.Array, *, regions: int) -> tuple[jax.Array, jax.Array]:
    """Makes every label one connected region: int32 [*space] -> int32 [*space], bool [regions].

    The pixels that a label's seed reaches through pixels of that label keep it. Every other pixel
    takes, in waves, the label of a neighbour (4 in an image, 6 in a volume). The seed of a label is
    the pixel of least cost among those whose neighbours' neighbours along the axes have the label,
    else among those whose neighbours have it, else among all.

    Args:
        labels: 0 to regions - 1.
        cost: float32 [*space], 0 or more and below 1; compared in the bits that the image's size
            leaves, 11 for a photograph of 500 x 500, and then by place.
        regions: capacity.

    Returns:
        The connected map, and which labels occur in it.
    """
    anchor = cost.ravel()[0]
    planes = barriers.materialize(lambda: pack(labels, regions), anchor)
    inside = _inside(labels.shape)
    links = barriers.materialize(lambda: _links(planes, inside), anchor)
    depth = unpack(barriers.materialize(lambda: _depth(links), anchor), labels.shape[0])
    seeds = _cheapest(labels, cost + 2 - depth, regions)
    reached = flood(links, place(seeds, labels.shape))
    return unpack(adopt(planes, inside, reached), labels.shape[0]), seeds >= 0


def _cheapest(labels: jax.Array, cost: jax.Array, regions: int) -> jax.Array:
    """Place of each label's pixel of least cost (0 to 3): int32 [regions], -1 for absent labels."""
    low = max(1, (labels.size - 1).bit_length())
    rank = jnp.floor(cost * (2.0 ** (31 - low) / 3)).astype(jnp.int32) << low
    rank = rank.ravel() | jnp.arange(labels.size, dtype=jnp.int32)
    none = 2**31 - 1
    best = jnp.full(regions, none, jnp.int32).at[labels.ravel()].min(rank)
    return jnp.where(best == none, -1, best & ((1 << low) - 1))


def pack(labels: jax.Array, count: int) -> jax.Array:
    """Bit planes of labels below `count`: int32 [H, ...] -> uint32 [bits, ceil(H / 32), ...]."""
    bits = max(1, math.ceil(math.log2(count)))
    slab = -(-labels.shape[0] // _WORD)
    fill = [(0, slab * _WORD - labels.shape[0])] + [(0, 0)] * (labels.ndim - 1)
    slabs = jnp.pad(labels.astype(jnp.uint32), fill).reshape(_WORD, slab, *labels.shape[1:])
    which = jnp.arange(bits, dtype=jnp.uint32).reshape(-1, *[1] * labels.ndim)
    # Unrolled: a reduction takes five times as long on a CPU.
    words = jnp.zeros((), jnp.uint32)
    for index in range(_WORD):
        words |= ((slabs[index] >> which) & 1) << index
    return words


def unpack(planes: jax.Array, height: int) -> jax.Array:
    """The inverse of `pack`: uint32 [bits, slab, ...] -> int32 [H, ...]."""
    which = jnp.arange(_WORD, dtype=jnp.uint32).reshape(-1, *[1] * (planes.ndim - 1))
    values = jnp.zeros((), jnp.uint32)
    for index, plane in enumerate(planes):
        values |= ((plane >> which) & 1) << index
    return values.reshape(-1, *planes.shape[2:])[:height].astype(jnp.int32)


def place(seeds: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A plane with the bits of distinct pixels set: int32 [K] (-1: none) -> uint32 [slab, ...]."""
    row = math.prod(shape[1:])
    slab = -(-shape[0] // _WORD)
    high, low = jnp.divmod(seeds, slab * row)
    words = jnp.zeros(slab * row, jnp.uint32)
    index = jnp.where(seeds < 0, slab * row, low)
    bit = jnp.uint32(1) << jnp.maximum(high, 0).astype(jnp.uint32)
    return words.at[index].add(bit, mode="drop").reshape(slab, *shape[1:])


def _links(planes: jax.Array, inside: jax.Array) -> tuple[jax.Array, ...]:
    """For each direction, the bits of the pixels whose neighbour has the same label."""
    links = []
    for step in _steps(inside.ndim):
        unlike = jnp.zeros((), jnp.uint32)
        for plane in planes:
            unlike |= plane ^ _neighbor(plane, step)
        links.append(inside & ~unlike & _neighbor(inside, step))
    return tuple(links)


def _depth(links: tuple[jax.Array, ...]) -> jax.Array:
    """Depth as two bit planes: 1 if all neighbours have a pixel's label, 2 if theirs do, too."""
    inner = functools.reduce(jnp.bitwise_and, links)
    around = [_neighbor(inner, step) for step in _steps(inner.ndim)]
    deep = functools.reduce(jnp.bitwise_and, around, inner)
    return jnp.stack([inner ^ deep, deep])


def flood(links: tuple[jax.Array, ...], reached: jax.Array) -> jax.Array:
    """All pixels that links connect to `reached`: uint32 [slab, ...] -> uint32 [slab, ...]."""

    def wave(_, reached):
        new = reached
        for step, link in zip(_steps(reached.ndim), links, strict=True):
            new |= link & _neighbor(reached, step)
        return new

    def body(carry):
        new = jax.lax.fori_loop(0, _STRIDE, wave, carry[0])
        return new, jnp.any(new != carry[0])

    return jax.lax.while_loop(lambda carry: carry[1], body, (reached, jnp.array(True)))[0]


def adopt(planes: jax.Array, inside: jax.Array, reached: jax.Array) -> jax.Array:
    """Spreads the labels of reached pixels to all others: uint32 [bits, slab, ...] -> the same."""

    def wave(carry):
        planes, open_ = carry
        new, left = planes, open_
        for step in _steps(open_.ndim):
            # `inside`, because pixels outside the image are not open either.
            take = left & _neighbor(inside & ~open_, step)
            left &= ~take
            new |= take & _neighbor(planes, step)
        return new, left

    carry = (planes & reached, inside & ~reached)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1] != 0), wave, carry)[0]


def _inside(shape: tuple[int, ...]) -> jax.Array:
    """Bits of the pixels in the image; the last slab may extend below it."""
    slab = -(-shape[0] // _WORD)
    rows = np.zeros(slab * _WORD, np.uint32)
    rows[: shape[0]] = 1
    shifts = np.arange(_WORD, dtype=np.uint32)[:, None]
    words = np.bitwise_or.reduce(rows.reshape(_WORD, slab) << shifts, axis=0)
    words = words.reshape(-1, *[1] * (len(shape) - 1))
    return jnp.broadcast_to(jnp.asarray(words), (slab, *shape[1:]))


def _steps(axes: int) -> list[tuple[int, int, bool]]:
    """(axis, distance, whether words pack this axis) of each neighbour; axes count from the end."""
    return [(axis - axes, distance, not axis) for axis in range(axes) for distance in (-1, 1)]


def _neighbor(words: jax.Array, step: tuple[int, int, bool]) -> jax.Array:
    """The bits of every pixel's neighbour; 0 outside the image."""
    axis, distance, packed = step
    length = words.shape[axis]
    if not packed:
        # A negative amount crops.
        amount = [(0, 0, 0)] * words.ndim
        amount[axis] = (-distance, distance, 0)
        return jax.lax.pad(words, jnp.uint32(0), amount)
    # The last row of a slab is followed by the first row of the next slab, one bit higher.
    if distance < 0:
        last = jax.lax.slice_in_dim(words, length - 1, length, axis=axis)
        rest = jax.lax.slice_in_dim(words, 0, length - 1, axis=axis)
        return jnp.concatenate([last << 1, rest], axis=axis)
    first = jax.lax.slice_in_dim(words, 0, 1, axis=axis)
    rest = jax.lax.slice_in_dim(words, 1, length, axis=axis)
    return jnp.concatenate([rest, first >> 1], axis=axis)
