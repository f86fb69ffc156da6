"""Gaussian filtering in many dimensions on the permutohedral lattice.

Adams, Baek, Davis: Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics
2010. The values of points are splatted onto the corners of the simplex that each point lies in, the
vertices are blurred along every axis of the lattice, and the points read the result back. The cost
does not depend on the width of the kernel. A `Lattice` depends on the points alone: it is built
once, on the device, and filters any number of channels.
"""

import functools
import math
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from segjax import strips

OUT_OF_RANGE = np.iinfo(np.int32).max
"""`Lattice.needed` of points that are too far apart for any capacity."""

_FREE = np.iinfo(np.int32).max  # marks a free slot of the hash table
_REACH = 1 << 15  # coordinates are packed into 16 bits, two to a word
_LEVELS = 4  # number of table sizes to choose from
_LOAD = 1.5  # slots of the hash table per corner, so that it is never full

_Words = jax.Array | Sequence[jax.Array]  # the packed coordinates of keys, word by word


@flax.struct.dataclass
class Lattice:
    """The places of N points of d dimensions on a lattice with room for C vertices.

    Tables of vertices have C + 1 rows. Row 0 stands for all absent vertices and stays zero; the
    others follow in the order of their first points.

    Attributes:
        corners: int32 [d + 1, N], the vertices of each point's simplex; 0 for masked points.
        weights: float [d + 1, N], the barycentric coordinates of each point: 0 to 1 and summing to
            1; 0 for masked points.
        neighbours: int32 [d + 1, 2, C + 1], the vertices before and after each vertex along every
            axis.
        needed: int32 [], the number of vertices of the points. Above C the lattice has overflowed
            and filters everything to NaN.
    """

    corners: jax.Array
    weights: jax.Array
    neighbours: jax.Array
    needed: jax.Array

    @property
    def capacity(self) -> int:
        """The number of vertices that the lattice has room for, C."""
        return self.neighbours.shape[-1] - 1


def build(features: jax.Array, capacity: int, mask: jax.Array | None = None) -> Lattice:
    """The lattice for the kernel exp(-|f_i - f_j|^2 / 2).

    Args:
        features: float [d, N], f in standard deviations. The weights can be differentiated by the
            features; a point's simplex is constant between the faces of simplices.
        capacity: C, 1 or more. N (d + 1) always suffices; `Lattice.needed` is the least that does.
        mask: bool [N], the points that count; None: all points.
    """
    elevated = _elevate(features)
    origin, rank = _simplex(jax.lax.stop_gradient(elevated))
    keys = _corner_keys(origin, rank)
    absent = jnp.zeros(rank.shape, bool) if mask is None else jnp.broadcast_to(~mask, rank.shape)
    firsts, slots = _insert(keys, absent)
    corners, owners, needed = _number(firsts, slots, absent, capacity)
    neighbours = _neighbours(keys, slots, owners, needed, firsts.shape[0])
    # No maximum: on CPU, XLA's maximum over many numbers skips NaN.
    inside = jnp.all(absent | (jnp.abs(elevated) < _REACH - 3 * rank.shape[0]))
    return Lattice(
        corners=corners,
        weights=jnp.where(absent, 0, _barycentric(elevated, origin, rank)),
        neighbours=neighbours,
        needed=jnp.where(inside, needed, OUT_OF_RANGE),
    )


def apply(lattice: Lattice, values: jax.Array, transpose: bool = False) -> jax.Array:
    """Filters channels: float [N, C] -> [N, C].

    The result is the sum over all points, weighted by the kernel, except for a constant factor
    (0.87 at d = 2, 0.51 at d = 5, measured) and for the approximation, whose error is a tenth of
    the result's deviation.

    Args:
        lattice: the lattice of the points.
        values: the values of the points. The result can be differentiated by them and by
            `Lattice.weights`, exactly, at the cost of one more filtering for each.
        transpose: whether the adjoint is applied: since the axes are blurred one after the other,
            the operator is not quite symmetric.
    """
    out = strips.by_channel(functools.partial(_filter, transpose=transpose), lattice, values)
    return jnp.where(lattice.needed <= lattice.capacity, out, jnp.nan)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _filter(lattice: Lattice, values: jax.Array, transpose: bool) -> jax.Array:
    def out(rows):
        table = _blurred(lattice, rows, values, transpose)
        return _gain(lattice) * _slice(lattice.corners, lattice.weights, table)

    return _for_rows(lattice, out)


def _filter_fwd(lattice, values, transpose):
    return _filter(lattice, values, transpose), (lattice, values)


def _filter_bwd(transpose, residuals, gradient):
    lattice, values = residuals
    gradient = _gain(lattice) * gradient

    def out(rows):
        back = _blurred(lattice, rows, gradient, not transpose)
        # The weights act twice, in the splat and in the slice. XLA drops this if nothing uses it.
        forward = _blurred(lattice, rows, values, transpose)
        by_weight = [
            jnp.sum(_rows(back, corner) * values + _rows(forward, corner) * gradient, axis=1)
            for corner in lattice.corners
        ]
        return _slice(lattice.corners, lattice.weights, back), jnp.stack(by_weight)

    by_value, by_weight = _for_rows(lattice, out)
    return lattice.replace(corners=None, weights=by_weight, neighbours=None, needed=None), by_value


_filter.defvjp(_filter_fwd, _filter_bwd)


def _gain(lattice: Lattice) -> float:
    """The factor of the publication's code; the blur doubles a constant along every axis."""
    return 1 / (1 + 2.0 ** -(lattice.corners.shape[0] - 1))


def _for_rows(lattice: Lattice, function: Callable):
    """The result of function(rows), rows being the length of tables of vertices.

    A CPU takes the smallest quarter of all rows that suffices, other devices take all.
    """
    every = lattice.capacity + 1
    levels = sorted({-(-every * part // _LEVELS) for part in range(1, _LEVELS + 1)})

    def few(needed):
        level = jnp.sum(needed >= jnp.asarray(levels[:-1], jnp.int32))
        return jax.lax.switch(level, [functools.partial(function, rows) for rows in levels])

    return jax.lax.platform_dependent(
        lattice.needed, cpu=few, default=lambda needed: function(every)
    )


def _blurred(lattice: Lattice, rows: int, values: jax.Array, transpose: bool) -> jax.Array:
    """Splats and blurs values: [N, C] -> [rows, C]."""
    table = _splat(lattice.corners, lattice.weights, values, rows)
    return _blur(lattice.neighbours, table, transpose)


def _rows(table: jax.Array, index: jax.Array) -> jax.Array:
    return table.at[index].get(mode="promise_in_bounds")


def _splat(corners: jax.Array, weights: jax.Array, values: jax.Array, rows: int) -> jax.Array:
    """Splats values onto the corners: [N, C] -> [rows, C].

    It takes one corner after the other: scatters in a loop share their memory.
    """

    def add(table, corner):
        index, weight = corner
        return table.at[index].add(weight[:, None] * values, mode="promise_in_bounds"), None

    table = jnp.zeros((rows, values.shape[1]), values.dtype)
    return jax.lax.scan(add, table, (corners, weights))[0]


def _blur(neighbours: jax.Array, table: jax.Array, transpose: bool) -> jax.Array:
    """Blurs vertices along one axis after the other, or in the reverse order for the adjoint.

    The blur along a single axis is symmetric.
    """

    axes, rows = neighbours.shape[0], table.shape[0]

    def along(i, table):
        axis = axes - 1 - i if transpose else i
        before, after = jax.lax.dynamic_slice(neighbours, (axis, 0, 0), (1, 2, rows))[0]
        return table + 0.5 * (_rows(table, before) + _rows(table, after))

    return jax.lax.fori_loop(0, axes, along, table)


def _slice(corners: jax.Array, weights: jax.Array, table: jax.Array) -> jax.Array:
    """Reads the vertices back at the points: [rows, C] -> [N, C]."""
    pairs = zip(corners, weights, strict=True)
    return sum(weight[:, None] * _rows(table, corner) for corner, weight in pairs)


def _elevate(features: jax.Array) -> jax.Array:
    """Embeds points in the hyperplane of sum 0, scaled to the blur (page 5): [d, N] -> [d + 1, N].

    One standard deviation of the features becomes one of the blur.
    """
    d = features.shape[0]
    deviation = (d + 1) * math.sqrt(2 / 3)
    scaled = [features[i] * (deviation / math.sqrt((i + 1) * (i + 2))) for i in range(d)]
    total, elevated = jnp.zeros_like(scaled[0]), []
    for i in range(d, 0, -1):
        elevated.append(total - i * scaled[i - 1])
        total = total + scaled[i - 1]
    return jnp.stack([total, *elevated[::-1]])


def _simplex(elevated: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The simplex that each point lies in.

    Returns:
        int32 [d + 1, N], the coordinates of its corner of colour 0.
        int32 [d + 1, N], the rank of every coordinate: the number of coordinates that are further
        from that corner; of equal ones the first counts as further.
    """
    n = elevated.shape[0]
    quotient = jnp.round(elevated * (1 / n))
    rest = elevated - quotient * n
    ahead = [
        [rest[i] < rest[j] if i < j else rest[i] <= rest[j] for j in range(n)] for i in range(n)
    ]
    rank = jnp.stack(
        [sum(ahead[i][j].astype(jnp.int32) for j in range(n) if j != i) for i in range(n)]
    )
    # Rounding may leave the hyperplane: coordinates with the largest rounding errors go back.
    quotient = quotient.astype(jnp.int32)
    rank = rank + quotient.sum(0)
    wrap = (rank < 0).astype(jnp.int32) - (rank >= n).astype(jnp.int32)
    return (quotient + wrap) * n, rank + wrap * n


def _barycentric(elevated: jax.Array, origin: jax.Array, rank: jax.Array) -> jax.Array:
    """Barycentric coordinates, by the colour of the corner (page 10): float [d + 1, N]."""
    n = elevated.shape[0]
    colour = jnp.arange(n)[:, None]
    last, next_ = n - 1 - colour, (n - colour) % n
    shares = (elevated - origin) * (1 / n)
    whole = (colour == 0).astype(elevated.dtype)
    return whole + sum(
        jnp.where(rank[i] == last, shares[i], 0) - jnp.where(rank[i] == next_, shares[i], 0)
        for i in range(n)
    )


def _corner_keys(origin: jax.Array, rank: jax.Array) -> jax.Array:
    """The packed coordinates of every corner: int32 [words, d + 1, N].

    The corner of colour q lies at `origin` + q, less d + 1 where the rank is above d - q.
    """
    n = origin.shape[0]
    colour = jnp.arange(n)[:, None]
    return jnp.stack(
        _pack([origin[i] + colour - n * (rank[i] >= n - colour) for i in range(n - 1)])
    )


def _pack(coordinates: Sequence[jax.Array]) -> list[jax.Array]:
    """Packs coordinates, two to a word.

    They are those of a vertex without its last one, which the others imply.
    """
    pairs = [coordinates[i : i + 2] for i in range(0, len(coordinates), 2)]
    return [(pair[0] << 16) | (pair[-1] & 0xFFFF) for pair in pairs]


def _unpack(words: Sequence[jax.Array], dims: int) -> list[jax.Array]:
    return [(words[i // 2] << 16 * (i % 2)) >> 16 for i in range(dims)]


def _probe(words: _Words, size: int) -> tuple[jax.Array, jax.Array]:
    """The first slot to probe for a key in a table of `size` = 2^b slots, and the odd step on."""
    mixed = jnp.zeros_like(words[0], jnp.uint32)
    for word in words:
        mixed = (mixed ^ word.astype(jnp.uint32)) * np.uint32(0x9E3779B1)
        mixed = mixed ^ (mixed >> 15)
    mixed = mixed * np.uint32(0x85EBCA77)
    first = (mixed >> (33 - size.bit_length())).astype(jnp.int32)
    return first, ((mixed << 1) | 1).astype(jnp.int32) & (size - 1)


def _insert(keys: jax.Array, absent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Inserts the keys of all corners into an open hash table, in rounds.

    Returns:
        int32 [slots], the first entry of the key in each slot, as an index into [(d + 1) N].
        int32 [d + 1, N], the slot of every entry.
    """
    entries = absent.size
    size = 1 << max(4, math.ceil(math.log2(_LOAD * entries)))
    words = keys.reshape(keys.shape[0], entries)
    slot, step = _probe(words, size)
    order = jnp.arange(entries, dtype=jnp.int32)

    def round_(carry):
        table, slot, waiting = carry
        # A slot keeps its first key; among the keys of one round, the first entry wins.
        open_ = waiting & (_rows(table, slot) == _FREE)
        table = table.at[slot].min(jnp.where(open_, order, _FREE), mode="promise_in_bounds")
        owner = jnp.minimum(_rows(table, slot), entries - 1)
        waiting &= ~_all_equal(words, [_rows(word, owner) for word in words])
        return table, jnp.where(waiting, (slot + step) & (size - 1), slot), waiting

    carry = jnp.full((size,), _FREE, jnp.int32), slot, ~absent.reshape(-1)
    table, slot, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[2]), round_, carry)
    return table, slot.reshape(absent.shape)


def _number(
    firsts: jax.Array, slots: jax.Array, absent: jax.Array, capacity: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Numbers the vertices in the order of their first corners.

    Returns:
        int32 [d + 1, N], the vertex of every corner, from 1 on.
        int32 [C + 1], the first corner of every vertex.
        int32 [], the number of vertices.
    """
    there, slots = ~absent.reshape(-1), slots.reshape(-1)
    order = jnp.arange(there.size, dtype=jnp.int32)
    first = jnp.where(there, _rows(firsts, slots), 0)
    new = there & (first == order)
    number = jnp.cumsum(new, dtype=jnp.int32)
    # Vertices beyond the capacity count as absent; the result is NaN then.
    fits = jnp.where(number <= capacity, number, 0)
    corners = jnp.where(there, _rows(fits, first), 0)
    owners = jnp.zeros((capacity + 1,), jnp.int32).at[jnp.where(new, fits, 0)].set(order)
    return corners.reshape(absent.shape), owners, number[-1]


def _neighbours(
    keys: jax.Array, slots: jax.Array, owners: jax.Array, needed: jax.Array, size: int
) -> jax.Array:
    """The vertices before and after each vertex: int32 [d + 1, 2, C + 1], see `Lattice`."""
    axes = slots.shape[0]
    vertex = jnp.arange(owners.shape[0], dtype=jnp.int32)
    there = (vertex > 0) & (vertex <= needed)
    words = [_rows(word, owners) for word in keys.reshape(keys.shape[0], -1)]
    slot = jnp.where(there, _rows(slots.reshape(-1), owners), size)
    table = jnp.zeros((size,), jnp.int32).at[slot].set(vertex, mode="drop")
    at = _unpack(words, axes - 1)
    by_axis = [
        _pack([c + (axes - 1 if i == axis else -1) for i, c in enumerate(at)])
        for axis in range(axes)
    ]
    keys_before = [jnp.stack(word) for word in zip(*by_axis, strict=True)]
    slot, step = _probe(keys_before, size)

    def round_(carry):
        slot, waiting, before = carry
        candidate = _rows(table, slot)
        same = _all_equal(keys_before, [_rows(word, candidate) for word in words])
        before = jnp.where(waiting & same, candidate, before)  # stays 0 at a free slot
        waiting &= ~same & (candidate > 0)
        return jnp.where(waiting, (slot + step) & (size - 1), slot), waiting, before

    absent = jnp.zeros(slot.shape, jnp.int32)
    carry = slot, jnp.broadcast_to(there, slot.shape), absent
    before = jax.lax.while_loop(lambda carry: jnp.any(carry[1]), round_, carry)[2]
    # If a lies before b, then b lies after a.
    axis = jnp.arange(axes)[:, None]
    after = absent.at[axis, before].set(jnp.broadcast_to(vertex, before.shape))
    return jnp.stack([before, after.at[:, 0].set(0)], 1)


def _all_equal(keys: _Words, others: _Words) -> jax.Array:
    """Whether all words of two keys are equal, elementwise."""
    same = [key == other for key, other in zip(keys, others, strict=True)]
    return functools.reduce(jnp.logical_and, same)
