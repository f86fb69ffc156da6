"""Lloyd's algorithm on points in blocks, for `kmeans` and its mini-batch form.

Points are stored in blocks, float32 [F, P, 16, 64]. A sum over all points first adds the sixteen
rows lane by lane: a CPU adds many numbers at a time, no long chain of roundings arises, and a batch
gives exactly the sums of single images.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from segjax import arrays
from segjax.classical import barriers

_ROWS, _LANES = 16, 64  # of a block; the fastest size tried on a CPU, it fits the first cache
_BLOCK = _ROWS * _LANES
# Up to this number of centres times features, distances are written out, which is several times
# faster on a CPU than products of such thin matrices; above it, compiling would take too long.
_WRITTEN_OUT = 160
SCORES = 2**20  # distances in memory at a time if they are not written out


class Fit(NamedTuple):
    """Clusters of points.

    Attributes:
        centres: float32 [K, F].
        assignment: int32 [N], number of the nearest centre.
        inertia: float32 [], sum of the squared distances to the nearest centres.
        iterations: int32 [], number of moves of the centres.
    """

    centres: jax.Array
    assignment: jax.Array
    inertia: jax.Array
    iterations: jax.Array


class Blocks(NamedTuple):
    """`size` points, float32 [F, P, 16, 64], minus `middle` [F], followed by padding of value 0."""

    values: jax.Array
    middle: jax.Array
    size: int

    @property
    def real(self) -> jax.Array:
        """Whether a place holds a point: bool [P, 16, 64]."""
        shape = self.values.shape[1:]
        return jnp.arange(math.prod(shape)).reshape(shape) < self.size


def iterate(blocks: Blocks, start: jax.Array, *, tol: float, max_iterations: int) -> Fit:
    """Moves the centres, [K, F], until they settle; the assignment of the Fit is [P, 16, 64]."""
    limit = tol * _variance(blocks)

    def body(carry):
        centres, label, _, iteration = carry
        totals = sums(blocks, label, len(start), anchor=centres[0, 0])
        size = totals[:, -1:]
        moved = jnp.where(size > 0, totals[:, :-1] / jnp.maximum(size, 1), centres)
        moved = reseed(blocks, moved, size[:, 0] == 0)
        return moved, assign(blocks, moved), jnp.sum((moved - centres) ** 2), iteration + 1

    def more(carry):
        return (carry[2] > limit) & (carry[3] < max_iterations)

    carry = (start, assign(blocks, start), jnp.inf, jnp.int32(0))
    centres, label, _, iterations = jax.lax.while_loop(more, body, carry)
    return Fit(centres, label, _inertia(blocks, centres, label), iterations)


# Blocks of points


def to_blocks(planes: jax.Array, clusters: int) -> Blocks:
    """Points in blocks: float32 [F, N], N at least 1."""
    count, size = planes.shape
    number = -(-size // _BLOCK)
    strips = _strips(number, clusters, count)
    number = -(-number // strips) * strips
    # The middle of the range of a sample: near the mean, and without a sum that would be rounded.
    sample = planes[:, :: max(1, size // _BLOCK)]
    middle = 0.5 * (sample.min(axis=1) + sample.max(axis=1))
    values = jnp.pad(planes - middle[:, None], ((0, 0), (0, number * _BLOCK - size)))
    return Blocks(values.reshape(count, number, _ROWS, _LANES), middle, size)


def _strips(number: int, clusters: int, count: int) -> int:
    """Number of parts into which blocks are split so that distances to all centres fit."""
    if clusters * count <= _WRITTEN_OUT:
        return 1
    return min(number, -(-number * _BLOCK * clusters // SCORES))


def _strip(array: jax.Array, index: jax.Array, strips: int) -> jax.Array:
    """Part `index` of an array [..., P, 16, 64], flattened: [..., S]."""
    axis = array.ndim - 3
    width = array.shape[axis] // strips
    part = jax.lax.dynamic_slice_in_dim(array, index * width, width, axis)
    return part.reshape(*array.shape[:axis], -1)


def _tree(terms: list[jax.Array]) -> jax.Array:
    """The sum of the terms, added in pairs."""
    while len(terms) > 1:
        odd = terms[len(terms) // 2 * 2 :]
        terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)] + odd
    return terms[0]


def _over_rows(blocks: Sequence[jax.Array]) -> list[jax.Array]:
    """Sums over the rows of several arrays in one pass: [..., 16, 64] -> [..., 64] each.

    The arrays' inputs are read once, and shared inputs are computed once.
    """
    zeros = tuple(jnp.zeros((), block.dtype) for block in blocks)
    return jax.lax.reduce(
        tuple(blocks),
        zeros,
        lambda one, other: tuple(a + b for a, b in zip(one, other, strict=True)),
        (blocks[0].ndim - 2,),
    )


def _total(partial: jax.Array) -> jax.Array:
    """Sum over blocks and lanes: [P, ..., 64] -> [...]."""
    lanes = partial.sum(axis=0)
    for half in (32, 16, 8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def _variance(blocks: Blocks) -> jax.Array:
    """Mean of the variances of the features."""
    moments = _over_rows([*blocks.values, *blocks.values**2])
    mean, square = jnp.split(jnp.stack([_total(each) for each in moments]) / blocks.size, 2)
    return jnp.maximum(jnp.mean(square - mean**2), 0)


# Assignment and sums


def scores(centres: jax.Array, points: jax.Array) -> jax.Array:
    """Half the squared distance minus |x|^2 / 2: [K, F], [F, S] -> [K, S]."""
    half = 0.5 * jnp.sum(centres**2, axis=1, keepdims=True)
    return half - jnp.matmul(centres, points, precision=jax.lax.Precision.HIGHEST)


def _nearest(centres: jax.Array, values: jax.Array) -> jax.Array:
    """The first nearest centre, with distances written out: [K, F], [F, ...] -> int32 [...]."""
    half = 0.5 * jnp.sum(centres**2, axis=1)
    pairs = []
    for number in range(len(centres)):
        score = half[number]
        for feature in range(len(values)):
            score = score - centres[number, feature] * values[feature]
        pairs.append((score, jnp.int32(number)))
    # In pairs, as in a tournament, which is a shorter chain than one after another.
    while len(pairs) > 1:
        odd = pairs[len(pairs) // 2 * 2 :]
        pairs = [_less(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=False)] + odd
    return jnp.broadcast_to(pairs[0][1], values.shape[1:])


def _less(first: tuple, second: tuple) -> tuple:
    """The (score, number) of the smaller score, the first of two equal ones."""
    closer = second[0] < first[0]
    return tuple(jnp.where(closer, new, old) for old, new in zip(first, second, strict=True))


def assign(blocks: Blocks, centres: jax.Array) -> jax.Array:
    """The nearest centre of every point: int32 [P, 16, 64]."""
    if centres.size <= _WRITTEN_OUT:
        return _nearest(centres, blocks.values)
    strips = _strips(blocks.values.shape[1], *centres.shape)

    def part(index: jax.Array) -> jax.Array:
        distances = scores(centres, _strip(blocks.values, index, strips))
        return jnp.argmin(distances, axis=0).astype(jnp.int32)

    return jax.lax.map(part, jnp.arange(strips)).reshape(blocks.values.shape[1:])


def sums(blocks: Blocks, label: jax.Array, clusters: int, *, anchor: jax.Array) -> jax.Array:
    """Sums of the points with each label, with their number in the last column: [K, F + 1]."""
    if clusters * len(blocks.values) > _WRITTEN_OUT:
        totals, sizes = _sums_by_products(blocks, label, clusters)
    else:
        member = label[:, None] == jnp.arange(clusters)[:, None, None]

        def partial() -> list[jax.Array]:
            """Sums over rows, [P, K, 64], for every feature and for the number."""
            parts = [jnp.where(member, plane[:, None], 0) for plane in blocks.values]
            return _over_rows([*parts, member.astype(jnp.int32)])

        *features, sizes = [_total(each) for each in barriers.materialize(partial, anchor)]
        totals = jnp.stack(features, axis=1)
    # All padding has the same label and adds only its number.
    padding = label.size - blocks.size
    sizes = sizes.at[label.ravel()[-1]].add(-padding)
    return jnp.concatenate([totals, sizes[:, None].astype(jnp.float32)], axis=1)


def _sums_by_products(blocks: Blocks, label: jax.Array, clusters: int) -> tuple[jax.Array, ...]:
    """Sums [K, F] and numbers int32 [K] of the points with each label, padding included."""
    count, number = blocks.values.shape[:2]
    strips = _strips(number, clusters, count)

    def add(index: jax.Array, carry):
        totals, sizes = carry
        member = _strip(label, index, strips) == jnp.arange(clusters)[:, None]
        values = _strip(blocks.values, index, strips)
        part = jnp.matmul(member.astype(jnp.float32), values.T, precision=jax.lax.Precision.HIGHEST)
        return totals + part, sizes + member.sum(axis=1, dtype=jnp.int32)

    start = jnp.zeros((clusters, count)), jnp.zeros(clusters, jnp.int32)
    return jax.lax.fori_loop(0, strips, add, start)


def _distance(values: jax.Array, centre: jax.Array | Sequence[jax.Array]) -> jax.Array:
    """Squared distance to one centre: [F, ...], [F] -> [...]."""
    return arrays.total((plane - place) ** 2 for plane, place in zip(values, centre, strict=True))


def _inertia(blocks: Blocks, centres: jax.Array, label: jax.Array) -> jax.Array:
    """Sum of the points' squared distances to their centres: float32 []."""
    if centres.size <= _WRITTEN_OUT:
        far = [_distance(blocks.values, centre) for centre in centres]
        squares = functools.reduce(jnp.minimum, far)
    else:
        squares = _distance(blocks.values, [column[label] for column in centres.T])
    squares = jnp.where(blocks.real, squares, 0)
    return _total(_tree([squares[:, row] for row in range(_ROWS)]))


def reseed(blocks: Blocks, centres: jax.Array, empty: jax.Array) -> jax.Array:
    """Moves every empty cluster's centre to the point farthest from all other centres.

    A loop instead of a condition, because it costs nothing without empty clusters, even in a batch.
    """

    def body(carry):
        centres, empty = carry

        def nearer(number: jax.Array, closest: jax.Array) -> jax.Array:
            far = _distance(blocks.values, centres[number])
            return jnp.minimum(closest, jnp.where(empty[number], jnp.inf, far))

        closest = jnp.where(blocks.real, jnp.inf, -1)
        closest = jax.lax.fori_loop(0, len(centres), nearer, closest).ravel()
        farthest = jnp.argmax(closest)
        apart = closest[farthest] > 0  # else all points lie on centres
        index = jnp.argmax(empty)
        point = blocks.values.reshape(len(blocks.values), -1)[:, farthest]
        centres = centres.at[index].set(jnp.where(apart, point, centres[index]))
        return centres, empty.at[index].set(False) & apart

    return jax.lax.while_loop(lambda carry: jnp.any(carry[1]), body, (centres, empty))[0]


# Starting centres


def start(key: jax.Array, blocks: Blocks, clusters: int, init: str) -> jax.Array:
    """Starting centres, float32 [K, F], which are points; `init` as in `kmeans.fit`."""
    size = blocks.size
    points = blocks.values.reshape(len(blocks.values), -1)
    if init == "random":
        _, index = jax.lax.top_k(jax.random.uniform(key, (size,)), clusters)
        return points[:, index].T
    trials = 2 + int(math.log(clusters))
    first = points[:, jax.random.randint(key, (), 0, size)]
    closest = jnp.where(blocks.real, _distance(blocks.values, first), 0)

    def body(number: jax.Array, carry):
        centres, closest = carry
        index = _draw(jax.random.fold_in(key, number), closest, trials)
        candidates = points[:, jnp.minimum(index, size - 1)]

        def partial() -> jax.Array:
            """Sums of the squared distances that each candidate leaves: [P, trials, 64]."""
            rows = []
            for row in range(_ROWS):
                values = blocks.values[:, :, None, row]
                far = _distance(values, candidates[:, :, None])
                rows.append(jnp.minimum(closest[:, None, row], far))
            return _tree(rows)

        left = _total(barriers.materialize(partial, candidates[0, 0]))
        centre = candidates[:, jnp.argmin(left)]
        closest = jnp.minimum(closest, _distance(blocks.values, centre))
        return centres.at[number].set(centre), closest

    centres = jnp.zeros((clusters, len(points))).at[0].set(first)
    return jax.lax.fori_loop(1, clusters, body, (centres, closest))[0]


def _draw(key: jax.Array, weights: jax.Array, number: int) -> jax.Array:
    """Random points with probabilities proportional to weights: [P, 16, 64] -> int32 [number].

    Inverts the cumulative sum, first over the columns of the blocks, then within a column.
    """
    columns = _tree([weights[:, row] for row in range(_ROWS)]).ravel()
    cumulative = jnp.cumsum(columns)
    aim = jax.random.uniform(key, (number,)) * cumulative[-1]
    column = jnp.searchsorted(cumulative, aim, side="right")
    column = jnp.minimum(column, len(columns) - 1)
    block, lane = jnp.divmod(column, _LANES)
    rest = aim - jnp.where(column > 0, cumulative[column - 1], 0)
    inside = jnp.cumsum(weights[block, :, lane], axis=1)
    row = jnp.sum(inside <= rest[:, None], axis=1)
    row = jnp.minimum(row, _ROWS - 1)
    return (block * _BLOCK + row * _LANES + lane).astype(jnp.int32)
