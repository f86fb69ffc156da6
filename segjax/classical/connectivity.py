"""Regions in one piece: each label keeps what its seed reaches, the rest joins its neighbours.

A map is worked on as planes of bits, 32 pixels to a word: a step of a flood over the whole image is
then a few operations on a few thousand words, and needs neither gather nor scatter. The pixels of a
word lie a slab apart along the first axis, so that packing and stepping run along whole rows.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

_WORD = 32
_STRIDE = 8  # steps between two looks at whether anything changed


def seeds(labels: jax.Array, middles: jax.Array, *, least: int = 1) -> jax.Array:
    """A pixel of every region, well inside and near its middle: int32 [K].

    The nearest to the middle of those whose neighbours' neighbours along the axes are of the
    region; else of those whose neighbours are; else of all. A stray pixel is so no seed. Distances
    are compared in as many bits as the image's size leaves, 13 for a photograph of 500 x 500.

    Args:
        labels: int32 [*space], 0 to K - 1.
        middles: float32 [axes, K], such as centroids.
        least: pixels of a region that has a seed; the largest has one in any case.

    Returns:
        Places in raster order, -1 for a region without a seed; see `connect`.
    """
    count = middles.shape[1]
    flat = labels.ravel()
    members = jnp.zeros(count, jnp.int32).at[flat].add(1)
    apart = 0
    for axis in range(labels.ndim):
        place = jax.lax.broadcasted_iota(jnp.float32, labels.shape, axis)
        apart = apart + (place - middles[axis][labels]) ** 2
    # A share below 1 that grows with the distance, at any size of region.
    cost = apart / (apart + labels.size / count) + 2 - _depth(labels)
    low = max(1, (labels.size - 1).bit_length())
    cost = jnp.floor(cost * (2.0 ** (31 - low) / 3)).astype(jnp.int32)
    place = jnp.arange(flat.size, dtype=jnp.int32)
    best = jnp.full(count, 2**31 - 1, jnp.int32).at[flat].min(cost.ravel() << low | place)
    kept = (members >= least) | (jnp.arange(count) == jnp.argmax(members))
    return jnp.where(kept & (members > 0), best & ((1 << low) - 1), -1)


def _depth(labels: jax.Array) -> jax.Array:
    """0 at a region's edge, 1 beside it, 2 further in: int32 [*space] -> float32 [*space]."""
    inner = jnp.ones(labels.shape, bool)
    deep = inner
    for axis in range(labels.ndim):
        ends = [(0, 0)] * labels.ndim
        ends[axis] = (1, 0)
        same = jnp.diff(labels, axis=axis) == 0
        inner &= jnp.pad(same, ends) & jnp.pad(same, [e[::-1] for e in ends])
    for axis in range(labels.ndim):
        ends = [(0, 0)] * labels.ndim
        ends[axis] = (1, 1)
        wide = jnp.pad(inner, ends)
        length = labels.shape[axis]
        deep &= jax.lax.slice_in_dim(wide, 0, length, axis=axis)
        deep &= jax.lax.slice_in_dim(wide, 2, length + 2, axis=axis)
    return inner.astype(jnp.float32) + (inner & deep)


def connect(labels: jax.Array, seeds: jax.Array) -> jax.Array:
    """Makes every label one connected region: int32 [*space], int32 [K] -> int32 [*space].

    What a seed reaches through pixels of its own label stays; every other pixel takes, in waves,
    the label of a neighbour (4 of them in an image, 6 in a volume) that has one.

    Args:
        labels: 0 to K - 1.
        seeds: place of one pixel of each label, counted in raster order; -1 for a label that no
            pixel has. At least one label has a seed.
    """
    planes, inside = pack(labels, seeds.shape[0]), _inside(labels.shape)
    reached = flood(planes, inside, place(seeds, labels.shape))
    return unpack(adopt(planes, inside, reached), labels.shape[0])


def pack(labels: jax.Array, count: int) -> jax.Array:
    """The bits of labels below `count`: int32 [H, ...] -> uint32 [bits, ceil(H / 32), ...]."""
    bits = max(1, math.ceil(math.log2(count)))
    slab = -(-labels.shape[0] // _WORD)
    fill = [(0, slab * _WORD - labels.shape[0])] + [(0, 0)] * (labels.ndim - 1)
    slabs = jnp.pad(labels.astype(jnp.uint32), fill).reshape(_WORD, slab, *labels.shape[1:])
    which = jnp.arange(bits, dtype=jnp.uint32).reshape(-1, *[1] * labels.ndim)
    # Unrolled: as a reduction it takes five times as long on a CPU.
    words = jnp.zeros((), jnp.uint32)
    for index in range(_WORD):
        words |= ((slabs[index] >> which) & 1) << index
    return words


def unpack(planes: jax.Array, height: int) -> jax.Array:
    """The way back from `pack`: uint32 [bits, slab, ...] -> int32 [H, ...]."""
    which = jnp.arange(_WORD, dtype=jnp.uint32).reshape(-1, *[1] * (planes.ndim - 1))
    values = jnp.zeros((), jnp.uint32)
    for index, plane in enumerate(planes):
        values |= ((plane >> which) & 1) << index
    return values.reshape(-1, *planes.shape[2:])[:height].astype(jnp.int32)


def place(seeds: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sets the bits of different pixels: int32 [K], -1 for none -> uint32 [slab, ...]."""
    row = math.prod(shape[1:])
    slab = -(-shape[0] // _WORD)
    high, low = jnp.divmod(seeds, slab * row)
    words = jnp.zeros(slab * row, jnp.uint32)
    index = jnp.where(seeds < 0, slab * row, low)
    bit = jnp.uint32(1) << jnp.maximum(high, 0).astype(jnp.uint32)
    return words.at[index].add(bit, mode="drop").reshape(slab, *shape[1:])


def flood(planes: jax.Array, inside: jax.Array, reached: jax.Array) -> jax.Array:
    """All pixels that links of equal labels lead to: uint32 [slab, ...] -> uint32 [slab, ...]."""
    links = []
    for step in _steps(reached.ndim):
        unlike = jnp.zeros((), jnp.uint32)
        for plane in planes:
            unlike |= plane ^ _neighbor(plane, step)
        links.append(inside & ~unlike & _neighbor(inside, step))

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
    """Spreads the labels of reached pixels over all others: uint32 [bits, slab, ...] -> same."""

    def wave(carry):
        planes, open_ = carry
        new, left = planes, open_
        for step in _steps(open_.ndim):
            # Outside the image nothing is open either, hence `inside`.
            take = left & _neighbor(inside & ~open_, step)
            left &= ~take
            new |= take & _neighbor(planes, step)
        return new, left

    carry = (planes & reached, inside & ~reached)
    return jax.lax.while_loop(lambda carry: jnp.any(carry[1] != 0), wave, carry)[0]


def _inside(shape: tuple[int, ...]) -> jax.Array:
    """Bits of the pixels that exist; the last slab may end below the image."""
    slab = -(-shape[0] // _WORD)
    rows = np.zeros(slab * _WORD, np.uint32)
    rows[: shape[0]] = 1
    shifts = np.arange(_WORD, dtype=np.uint32)[:, None]
    words = np.bitwise_or.reduce(rows.reshape(_WORD, slab) << shifts, axis=0)
    words = words.reshape(-1, *[1] * (len(shape) - 1))
    return jnp.broadcast_to(jnp.asarray(words), (slab, *shape[1:]))


def _steps(axes: int) -> list[tuple[int, int, bool]]:
    """(axis, distance, whether rows lie in words along it) to each neighbour; axes from the end."""
    return [(axis - axes, distance, not axis) for axis in range(axes) for distance in (-1, 1)]


def _neighbor(words: jax.Array, step: tuple[int, int, bool]) -> jax.Array:
    """Every pixel's neighbour; 0 outside."""
    axis, distance, packed = step
    length = words.shape[axis]
    if not packed:
        # A negative amount cuts off.
        amount = [(0, 0, 0)] * words.ndim
        amount[axis] = (-distance, distance, 0)
        return jax.lax.pad(words, jnp.uint32(0), amount)
    # The row after a slab's last one is the first of the next slab, one bit on.
    if distance < 0:
        last = jax.lax.slice_in_dim(words, length - 1, length, axis=axis)
        rest = jax.lax.slice_in_dim(words, 0, length - 1, axis=axis)
        return jnp.concatenate([last << 1, rest], axis=axis)
    first = jax.lax.slice_in_dim(words, 0, 1, axis=axis)
    rest = jax.lax.slice_in_dim(words, 1, length, axis=axis)
    return jnp.concatenate([rest, first >> 1], axis=axis)
