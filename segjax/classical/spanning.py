"""The parts of Kruskal's algorithm (1956): sorted grid edges, and pixel sets stored as forests.

Each set is a tree whose root represents it. Functions have a sequential form for a CPU, a
`while_loop` of a few nanoseconds per trip, or a parallel form; both give the same result.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_LEAST, _MOST = 2.0**-16, 2.0**9
_DIGIT = 14  # bits; at most 2^28 floats lie between these bounds


class Edges(NamedTuple):
    """Edges of a graph whose vertices are pixels, numbered in raster order.

    Attributes:
        weight: float32 [M].
        one, other: int32 [M], the two pixels.
    """

    weight: jax.Array
    one: jax.Array
    other: jax.Array


def grid_edges(across: jax.Array, down: jax.Array) -> Edges:
    """The M = H (W - 1) + (H - 1) W + 2 (H - 1) (W - 1) edges of 8-neighbours, sorted by weight.

    A weight is the Euclidean distance of the two pixels' values. Among equal weights, right comes
    before down, down-right and down-left, and then raster order decides.

    Args:
        across: float32 [C, H, W - 1], values of pixels minus those of their left neighbours.
        down: float32 [C, H - 1, W], values of pixels minus those of their upper neighbours.
    """
    height, width = across.shape[1], down.shape[2]
    pixels = jnp.arange(height * width, dtype=jnp.int32).reshape(height, width)
    pairs = [_neighbors(height, width, *step) for step in ((0, 1), (1, 0), (1, 1), (1, -1))]
    down_right = across[:, :-1] + down[:, :, 1:]
    down_left = down[:, :, 1:] - across[:, 1:]
    weights = [_length(steps).ravel() for steps in (across, down, down_right, down_left)]
    weight = jnp.concatenate(weights)
    one, other = (jnp.concatenate([pixels[pair[k]].ravel() for pair in pairs]) for k in (0, 1))
    at = order(weight)
    return Edges(weight[at], one[at], other[at])


def _neighbors(height: int, width: int, down: int, right: int) -> tuple[tuple[slice, slice], ...]:
    """Slices of the pixels that have a neighbour in a direction, and of these neighbours."""
    left = max(0, -right)
    near = slice(0, height - down), slice(left, width - max(0, right))
    return near, (slice(down, height), slice(left + right, width + min(0, right)))


def _length(steps: jax.Array) -> jax.Array:
    return jnp.sqrt(sum(plane**2 for plane in steps))


def order(weight: jax.Array) -> jax.Array:
    """A stable argsort of numbers from 0 to 511: float32 [M] -> int32 [M].

    Numbers below 2^-16 count as 0; differences of colours in 0 .. 255 are that small by rounding.
    """
    if not weight.size:
        return jnp.zeros(0, jnp.int32)
    bits, least, most = (
        jax.lax.bitcast_convert_type(jnp.float32(x), jnp.int32) for x in (weight, _LEAST, _MOST)
    )
    keys = jnp.clip(bits, least, most - 1) - least
    return jax.lax.platform_dependent(keys, cpu=_radix_order, default=_sorted_order)


def _sorted_order(keys: jax.Array) -> jax.Array:
    return jnp.argsort(keys, stable=True).astype(jnp.int32)


@jax.custom_batching.sequential_vmap
def _radix_order(keys: jax.Array) -> jax.Array:
    """Radix sort by the lower, then the upper digit; nine times faster than sorting on a CPU."""
    low, high = keys & ((1 << _DIGIT) - 1), keys >> _DIGIT
    at = _distribute(jnp.arange(keys.size, dtype=jnp.int32), low)
    return _distribute(at, high[at])


def _distribute(values: jax.Array, digits: jax.Array) -> jax.Array:
    """`values` sorted by `digits`, stably: int32 [M], int32 [M] -> int32 [M]."""
    size, bins = values.size, 1 << _DIGIT
    counts = jnp.zeros(bins, jnp.int32).at[digits].add(1)
    starts = jnp.pad(jnp.cumsum(counts) - counts, (0, 1))

    # A trip stores the results of the trip before: an array that one fusion both reads and writes
    # would be copied every time. The last entries receive void stores.
    def body(carry):
        trip, place, done, digit, start, value = carry
        place, done = put(place, digit, start + 1), put(done, start, value)
        digit = get(digits, trip)
        return trip + 1, place, done, digit, get(place, digit), get(values, trip)

    done = jnp.zeros(size + 1, jnp.int32)
    zero = jnp.int32(0)
    carry = (zero, starts, done, jnp.int32(bins), jnp.int32(size), zero)
    carry = jax.lax.while_loop(lambda carry: carry[0] < size, body, carry)
    *_, done, _, start, value = carry
    return put(done, start, value)[:size]


def get(array: jax.Array, index: jax.Array) -> jax.Array:
    """`array[index]`, for an index known to be in bounds."""
    return array.at[index].get(mode="promise_in_bounds")


def put(array: jax.Array, index: jax.Array, value: jax.Array) -> jax.Array:
    """`array` with `value` stored at an index known to be in bounds."""
    return array.at[index].set(value, mode="promise_in_bounds")


def roots(parent: jax.Array) -> jax.Array:
    """The root of every node of a forest: int32 [N] -> int32 [N]; a root is its own parent."""

    def jump(pair):
        return pair[1], pair[1][pair[1]]

    return jax.lax.while_loop(_differ, jump, (parent, parent[parent]))[1]


def find(parent: jax.Array, nodes: jax.Array) -> jax.Array:
    """The roots of some nodes: int32 [N], int32 [...] -> int32 [...]."""

    def climb(pair):
        # Several steps per check, because each check makes an accelerator wait for the host.
        nodes = parent[parent[pair[1]]]
        return nodes, parent[nodes]

    return jax.lax.while_loop(_differ, climb, (nodes, parent[nodes]))[1]


def _differ(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    return jnp.any(pair[0] != pair[1])


def absorb(root: jax.Array, edges: Edges, min_size: int) -> jax.Array:
    """Joins components that are too small to others along their lightest edges, all at once.

    Sequentially, edges in order of weight join two components if either is too small. The lightest
    edge that leaves a small component joins it in any case, because nothing happened to the
    component before; so the result is the sequential one.

    Args:
        root: int32 [N], a pixel that represents each pixel's component.
        edges: M edges, sorted by weight.
        min_size: smallest size in pixels.

    Returns:
        int32 [N], like `root`.
    """
    pixels = jnp.arange(root.size, dtype=jnp.int32)
    rank = jnp.arange(edges.weight.size, dtype=jnp.int32)
    ends = jnp.stack([edges.one, edges.other])

    def leaving(root, size):
        sides = root[ends]
        small = (size[sides] < min_size).any(axis=0)
        return sides, (sides[0] != sides[1]) & small

    def body(carry):
        root, size, sides, crossing = carry
        lightest = jnp.full(root.size, rank.size, jnp.int32)
        lightest = lightest.at[sides].min(jnp.where(crossing, rank, rank.size)[None])
        hooks = (lightest < rank.size) & (size < min_size)
        start, end = (side[jnp.minimum(lightest, rank.size - 1)] for side in sides)
        target = jnp.where(hooks, jnp.where(start == pixels, end, start), pixels)
        # If both ends chose the same edge, the first becomes the root.
        target = jnp.where(hooks & (target[target] == pixels) & (pixels < target), pixels, target)
        new = roots(target)
        size = jnp.zeros_like(size).at[new].add(size)
        root = new[root]
        return root, size, *leaving(root, size)

    size = jnp.zeros(root.size, jnp.int32).at[root].add(1)
    carry = (root, size, *leaving(root, size))
    return jax.lax.while_loop(lambda carry: jnp.any(carry[3]), body, carry)[0]
