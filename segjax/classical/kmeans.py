"""K-means (Lloyd 1982) with greedy k-means++ (Arthur, Vassilvitskii 2007), and its mini-batch form.

Points lie in blocks, float32 [F, P, 16, 128]: a sum over all points begins with sixteen rows added
to each other lane by lane, which a CPU does many numbers at a time, without a long chain of
roundings, and for a batch exactly as for one image. Padding has weight 0.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from segjax.classical import features as pixel
from segjax.classical import fusion
from segjax.errors import InputError

INITS = ("k-means++", "random")

_ROWS, _LANES = 16, 128  # of a block; the fastest of those tried on a CPU
_BLOCK = _ROWS * _LANES
# Up to this many products of a centre's number with a feature's, distances are written out, which
# is several times faster on a CPU than products of such thin matrices; above, compiling takes long.
_WRITTEN_OUT = 160
_SCORES = 2**20  # distances held at a time where they are not written out


class Fit(NamedTuple):
    """Clusters of points.

    Attributes:
        centres: float32 [K, F].
        assignment: int32 [N], the number of the nearest centre.
        inertia: float32 [], sum of the squared distances to it.
        iterations: int32 [], how often the centres were moved.
    """

    centres: jax.Array
    assignment: jax.Array
    inertia: jax.Array
    iterations: jax.Array


class _Blocks(NamedTuple):
    """float32 points [F + 1, P, 16, 128], less `middle` [F]; the last row is their weight."""

    points: jax.Array
    middle: jax.Array

    @property
    def values(self) -> jax.Array:
        return self.points[:-1]

    @property
    def weight(self) -> jax.Array:
        return self.points[-1]


@functools.partial(
    jax.jit,
    static_argnames=(
        "clusters", "features", "position", "texture", "init", "restarts", "tol",
        "max_iterations", "seed",
    ),
)  # fmt: skip
def kmeans(
    image: jax.Array,
    *,
    clusters: int,
    features: str = "lab",
    position: float = 50.0,
    texture: float = 1.0,
    init: str = "k-means++",
    restarts: int = 1,
    tol: float = 1e-4,
    max_iterations: int = 300,
    seed: int = 0,
) -> jax.Array:
    """Segments an image by the clusters of its pixels: uint8 [H, W, 3] -> int32 [H, W].

    Args:
        image: RGB.
        clusters: K, at most H W.
        features, position, texture: as `kind`, `position`, `texture` of `features.pixel_features`.
        init, restarts, tol, max_iterations, seed: as in `fit`.

    Returns:
        Clusters numbered from 0 in the raster order of their first pixels; fewer than K where the
        image has fewer different pixels. A cluster may lie in many pieces.

    Raises:
        InputError: for an option that is not allowed.
    """
    height, width = image.shape[:2]
    planes = pixel.pixel_features(image, features, position=position, texture=texture)
    found = _fit(
        planes.reshape(len(planes), -1), None, clusters, init, restarts, tol, max_iterations, seed
    )
    return _number(found.assignment, clusters).reshape(height, width)


@functools.partial(
    jax.jit,
    static_argnames=("clusters", "init", "restarts", "tol", "max_iterations", "seed"),
)
def fit(
    points: jax.Array,
    *,
    clusters: int,
    start: jax.Array | None = None,
    init: str = "k-means++",
    restarts: int = 1,
    tol: float = 1e-4,
    max_iterations: int = 300,
    seed: int = 0,
) -> Fit:
    """Clusters points by Lloyd's algorithm: float [N, F] -> Fit.

    A cluster that becomes empty goes on from the point farthest from all other centres.

    Args:
        points: any floats; computed in float32, so best of similar ranges.
        clusters: K, 1 to N.
        start: float32 [K, F], centres to start from instead of `init`.
        init: "k-means++": each next centre is the best of 2 + log K points drawn with probability
            proportional to their squared distance from the centres so far; or "random": points,
            all equally likely.
        restarts: how many starts are tried; the least inertia is kept.
        tol: the centres have settled when the sum of their squared moves is at most this share of
            the mean variance of the features.
        max_iterations: the end if they have not.
        seed: of the random numbers.

    Raises:
        InputError: for an option that is not allowed.
    """
    return _fit(points.T, start, clusters, init, restarts, tol, max_iterations, seed)


def _fit(planes, start, clusters, init, restarts, tol, max_iterations, seed) -> Fit:
    """`fit` of points float [F, N]."""
    count, size = planes.shape
    _check(clusters, size, init=init, restarts=restarts, tol=tol, max_iterations=max_iterations)
    if start is not None and (start.shape != (clusters, count) or restarts != 1):
        raise InputError(
            f"start is {start.shape} with restarts {restarts}; ({clusters}, {count}) with 1 is "
            "allowed."
        )
    blocks = _blocks(planes.astype(jnp.float32), clusters)
    lloyd = functools.partial(_lloyd, blocks, tol=tol, max_iterations=max_iterations)
    if start is not None:
        found = lloyd(start.astype(jnp.float32) - blocks.middle)
    elif restarts == 1:
        found = lloyd(_start(jax.random.key(seed), blocks, size, clusters, init))
    else:
        keys = jax.random.split(jax.random.key(seed), restarts)
        starts = jax.vmap(lambda key: _start(key, blocks, size, clusters, init))(keys)
        found = jax.vmap(lloyd)(starts)
        best = jnp.argmin(found.inertia)
        found = jax.tree.map(lambda each: each[best], found)
    return found._replace(
        centres=found.centres + blocks.middle, assignment=found.assignment.ravel()[:size]
    )


def _check(clusters: int, size: int, **options) -> None:
    if not 1 <= clusters <= size:
        raise InputError(f"clusters is {clusters}; 1 to {size}, the number of points, is allowed.")
    if options["init"] not in INITS:
        raise InputError(f"init is {options['init']!r}; {' and '.join(INITS)} are allowed.")
    for key, least in (("restarts", 1), ("tol", 0), ("max_iterations", 1)):
        if options[key] < least:
            raise InputError(f"{key} is {options[key]}; at least {least} is allowed.")


def _lloyd(blocks: _Blocks, start: jax.Array, *, tol: float, max_iterations: int) -> Fit:
    """Moves centres [K, F] until they settle; the assignment is [P, 16, 128]."""
    limit = tol * _variance(blocks)

    def assign(centres: jax.Array) -> tuple[jax.Array, jax.Array]:
        label = fusion.apart(lambda: _assign(blocks, centres), centres[0, 0])
        return label, _partial_sums(blocks, label, len(start))

    def body(carry):
        centres, _, partial, _, iteration = carry
        sums = _total(partial)
        size = sums[:, -1:]
        moved = jnp.where(size > 0, sums[:, :-1] / jnp.maximum(size, 1), centres)
        moved = _reseed(blocks, moved, size[:, 0] == 0)
        return moved, *assign(moved), jnp.sum((moved - centres) ** 2), iteration + 1

    def more(carry):
        return (carry[3] > limit) & (carry[4] < max_iterations)

    carry = (start, *assign(start), jnp.inf, jnp.int32(0))
    centres, label, _, _, iterations = jax.lax.while_loop(more, body, carry)
    return Fit(centres, label, _inertia(blocks, centres, label), iterations)


# Blocks of points


def _blocks(planes: jax.Array, clusters: int) -> _Blocks:
    """float32 [F, N], N at least 1, to blocks."""
    count, size = planes.shape
    number = -(-size // _BLOCK)
    strips = _strips(number, clusters, count)
    number = -(-number // strips) * strips
    # Half-way between the extremes: near enough to the mean, and no sum to be rounded.
    middle = 0.5 * (planes.min(axis=1) + planes.max(axis=1))
    points = jnp.concatenate([planes - middle[:, None], jnp.ones((1, size))])
    points = jnp.pad(points, ((0, 0), (0, number * _BLOCK - size)))
    return _Blocks(points.reshape(count + 1, number, _ROWS, _LANES), middle)


def _strips(number: int, clusters: int, count: int) -> int:
    """Into how many parts blocks are split so that distances to all centres fit."""
    if clusters * count <= _WRITTEN_OUT:
        return 1
    return min(number, -(-number * _BLOCK * clusters // _SCORES))


def _strip(array: jax.Array, index: jax.Array, strips: int) -> jax.Array:
    """Part `index` of [..., P, 16, 128], flat: [..., S]."""
    axis = array.ndim - 3
    width = array.shape[axis] // strips
    part = jax.lax.dynamic_slice_in_dim(array, index * width, width, axis)
    return part.reshape(*array.shape[:axis], -1)


def _tree(terms: list[jax.Array]) -> jax.Array:
    """Their sum, in pairs."""
    while len(terms) > 1:
        odd = terms[len(terms) // 2 * 2 :]
        terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)] + odd
    return terms[0]


def _total(partial: jax.Array) -> jax.Array:
    """Sum over blocks and lanes: [P, ..., 128] -> [...]."""
    lanes = partial.sum(axis=0)
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def _variance(blocks: _Blocks) -> jax.Array:
    """Mean over the features of their variances."""
    values = jnp.stack([blocks.values, blocks.values**2])  # padding is 0
    partial = _tree([values[:, :, :, row] for row in range(_ROWS)])
    weight = _total(blocks.weight.sum(axis=1))
    mean, square = _total(jnp.moveaxis(partial, 2, 0)) / weight
    return jnp.maximum(jnp.mean(square - mean**2), 0)


# Assignment and sums


def _scores(centres: jax.Array, points: jax.Array) -> jax.Array:
    """Half the squared distance less |x|^2 / 2: [K, F], [F, S] -> [K, S]."""
    half = 0.5 * jnp.sum(centres**2, axis=1, keepdims=True)
    return half - jnp.matmul(centres, points, precision=jax.lax.Precision.HIGHEST)


def _nearest(centres: jax.Array, values: jax.Array) -> jax.Array:
    """The first of the nearest centres, written out: [K, F], [F, ...] -> int32 [...]."""
    half = 0.5 * jnp.sum(centres**2, axis=1)
    pairs = []
    for number in range(len(centres)):
        score = half[number]
        for feature in range(len(values)):
            score = score - centres[number, feature] * values[feature]
        pairs.append((score, jnp.int32(number)))
    # In pairs, as in a tournament: a shorter chain than one after the other.
    while len(pairs) > 1:
        odd = pairs[len(pairs) // 2 * 2 :]
        pairs = [_less(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=False)] + odd
    return jnp.broadcast_to(pairs[0][1], values.shape[1:])


def _less(one: tuple, other: tuple) -> tuple:
    closer = other[0] < one[0]
    return tuple(jnp.where(closer, new, old) for old, new in zip(one, other, strict=True))


def _assign(blocks: _Blocks, centres: jax.Array) -> jax.Array:
    """The nearest centre of every point: int32 [P, 16, 128]."""
    if centres.size <= _WRITTEN_OUT:
        return _nearest(centres, blocks.values)
    strips = _strips(blocks.points.shape[1], *centres.shape)

    def part(index: jax.Array) -> jax.Array:
        scores = _scores(centres, _strip(blocks.values, index, strips))
        return jnp.argmin(scores, axis=0).astype(jnp.int32)

    return jax.lax.map(part, jnp.arange(strips)).reshape(blocks.weight.shape)


def _partial_sums(blocks: _Blocks, label: jax.Array, clusters: int) -> jax.Array:
    """Sums of the points with each label, and their number last: [P, K, F + 1, 128].

    Their sum over blocks and lanes is meant, and for many clusters P and lanes are 1.
    """
    rows, number = blocks.points.shape[:2]
    if clusters * (rows - 1) > _WRITTEN_OUT:
        strips = _strips(number, clusters, rows - 1)

        def add(index: jax.Array, sums: jax.Array) -> jax.Array:
            member = jax.nn.one_hot(_strip(label, index, strips), clusters, axis=0)
            points = _strip(blocks.points, index, strips)
            return sums + jnp.matmul(member, points.T, precision=jax.lax.Precision.HIGHEST)

        sums = jax.lax.fori_loop(0, strips, add, jnp.zeros((clusters, rows)))
        return sums[None, :, :, None]

    numbers = jnp.arange(clusters)[:, None, None]
    points = jnp.moveaxis(blocks.points, 1, 0)[:, None]
    return _tree(
        [
            jnp.where(label[:, None, None, row] == numbers, points[:, :, :, row], 0)
            for row in range(_ROWS)
        ]
    )


def _distance(values: jax.Array, centre: jax.Array) -> jax.Array:
    """Squared distance to one centre: [F, ...], [F] -> [...]."""
    return sum((plane - place) ** 2 for plane, place in zip(values, centre, strict=True))


def _inertia(blocks: _Blocks, centres: jax.Array, label: jax.Array) -> jax.Array:
    squares = _distance(blocks.values, [column[label] for column in centres.T])
    return _weighted_total(squares * blocks.weight)


def _weighted_total(squares: jax.Array) -> jax.Array:
    """[P, 16, 128] -> []."""
    return _total(_tree([squares[:, row] for row in range(_ROWS)]))


def _reseed(blocks: _Blocks, centres: jax.Array, empty: jax.Array) -> jax.Array:
    """Puts every empty cluster's centre on the point farthest from all others.

    A loop rather than a condition: in a batch, too, it costs nothing while no cluster is empty.
    """

    def body(carry):
        centres, empty = carry

        def nearer(number: jax.Array, closest: jax.Array) -> jax.Array:
            far = _distance(blocks.values, centres[number])
            return jnp.minimum(closest, jnp.where(empty[number], jnp.inf, far))

        closest = jnp.where(blocks.weight > 0, jnp.inf, -1)
        closest = jax.lax.fori_loop(0, len(centres), nearer, closest).ravel()
        farthest = jnp.argmax(closest)
        found = closest[farthest] > 0  # else all points lie on centres
        index = jnp.argmax(empty)
        point = blocks.values.reshape(len(blocks.values), -1)[:, farthest]
        centres = centres.at[index].set(jnp.where(found, point, centres[index]))
        return centres, empty.at[index].set(False) & found

    return jax.lax.while_loop(lambda carry: jnp.any(carry[1]), body, (centres, empty))[0]


# Starting centres


def _start(key: jax.Array, blocks: _Blocks, size: int, clusters: int, init: str) -> jax.Array:
    """[K, F], on points."""
    points = blocks.values.reshape(len(blocks.values), -1)
    if init == "random":
        _, index = jax.lax.top_k(jax.random.uniform(key, (size,)), clusters)
        return points[:, index].T
    trials = 2 + int(math.log(clusters))
    first = points[:, jax.random.randint(key, (), 0, size)]
    closest = jnp.where(blocks.weight > 0, _distance(blocks.values, first), 0)

    def body(number: jax.Array, carry):
        centres, closest = carry
        index = _draw(jax.random.fold_in(key, number), closest, trials)
        candidates = points[:, jnp.minimum(index, size - 1)]

        def partial() -> jax.Array:
            """What is left of the squared distances with each candidate: [P, trials, 128]."""
            rows = []
            for row in range(_ROWS):
                values = blocks.values[:, :, None, row]
                far = _distance(values, candidates[:, :, None])
                rows.append(jnp.minimum(closest[:, None, row], far))
            return _tree(rows)

        left = _total(fusion.apart(partial, candidates[0, 0]))
        centre = candidates[:, jnp.argmin(left)]
        closest = jnp.minimum(closest, _distance(blocks.values, centre))
        return centres.at[number].set(centre), closest

    centres = jnp.zeros((clusters, len(points))).at[0].set(first)
    return jax.lax.fori_loop(1, clusters, body, (centres, closest))[0]


def _draw(key: jax.Array, weights: jax.Array, number: int) -> jax.Array:
    """Draws points with probabilities proportional to weights: [P, 16, 128] -> int32 [number].

    By the inverse of the cumulative sum, first over the columns of the blocks, then in a column.
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


def _number(labels: jax.Array, clusters: int) -> jax.Array:
    """Clusters in the order of their first pixels, without gaps: int32 [N] -> int32 [N]."""
    place = jnp.arange(labels.size, dtype=jnp.int32)
    first = jnp.full(clusters, labels.size, jnp.int32).at[labels].min(place)
    return jnp.argsort(jnp.argsort(first)).astype(jnp.int32)[labels]


# Mini-batches


@functools.partial(
    jax.jit,
    static_argnames=("clusters", "features", "position", "batch", "steps", "seed"),
)
def minibatch_kmeans(
    image: jax.Array,
    *,
    clusters: int,
    features: str = "lab",
    position: float = 50.0,
    batch: int = 4096,
    steps: int = 50,
    seed: int = 0,
) -> jax.Array:
    """K-means of an image too large for `kmeans` (Sculley 2010): uint8 [H, W, 3] -> int32 [H, W].

    A centre is the mean of all the sampled pixels it was ever given: each moves it by one over
    their number. Features exist for one batch or one strip of rows at a time.

    Args:
        image: RGB.
        clusters: K, at most H W and `batch`.
        features, position: as in `kmeans`; "texture" needs the whole image and is not allowed.
        batch: pixels drawn, with replacement, in every step.
        steps: number of batches; the first also gives the starting centres, by k-means++.
        seed: of the random numbers.

    Returns:
        As of `kmeans`.

    Raises:
        InputError: for an option that is not allowed.
    """
    height, width = image.shape[:2]
    pixel.check(features, pixel.POINTWISE)
    for key, value in (("batch", batch), ("steps", steps)):
        if value < 1:
            raise InputError(f"{key} is {value}; at least 1 is allowed.")
    if not 1 <= clusters <= min(batch, height * width):
        raise InputError(
            f"clusters is {clusters}; 1 to {min(batch, height * width)}, the number of pixels and "
            "of a batch, is allowed."
        )
    scale = position / max(height, width)
    key = jax.random.key(seed)

    def sample(step: jax.Array) -> _Blocks:
        key_y, key_x = jax.random.split(jax.random.fold_in(key, step))
        y = jax.random.randint(key_y, (1, batch), 0, height)
        x = jax.random.randint(key_x, (1, batch), 0, width)
        planes = pixel.point_features(
            image[y, x], y.astype(jnp.float32), x.astype(jnp.float32), features, scale=scale
        )
        return _blocks(planes[:, 0], clusters)

    def body(step: jax.Array, carry):
        centres, seen = carry
        blocks = sample(step)
        label = fusion.apart(lambda: _assign(blocks, centres - blocks.middle), centres[0, 0])
        sums = _total(fusion.apart(lambda: _partial_sums(blocks, label, clusters), centres[0, 0]))
        total = seen + sums[:, -1]
        push = sums[:, :-1] + sums[:, -1:] * (blocks.middle - centres)
        centres = centres + push / jnp.maximum(total, 1)[:, None]
        return _reseed(blocks, centres - blocks.middle, total == 0) + blocks.middle, total

    first = sample(jnp.int32(0))
    start = _start(key, first, batch, clusters, "k-means++") + first.middle
    centres, _ = jax.lax.fori_loop(0, steps, body, (start, jnp.zeros(clusters)))
    return _number(_assign_rows(image, centres, features, scale).ravel(), clusters).reshape(
        height, width
    )


def _assign_rows(image: jax.Array, centres: jax.Array, kind: str, scale: float) -> jax.Array:
    """The nearest centre of every pixel, strip of rows after strip: int32 [H, W]."""
    height, width = image.shape[:2]
    rows = max(1, _SCORES // (width * len(centres)))
    strips = -(-height // rows)
    image = jnp.pad(image, ((0, strips * rows - height), (0, 0), (0, 0)))
    columns = jax.lax.broadcasted_iota(jnp.float32, (rows, width), 1)

    def part(index: jax.Array) -> jax.Array:
        y = jax.lax.broadcasted_iota(jnp.float32, (rows, width), 0) + index * rows
        colors = jax.lax.dynamic_slice_in_dim(image, index * rows, rows)
        planes = pixel.point_features(colors, y, columns, kind, scale=scale)
        middle = planes.mean(axis=(1, 2))
        scores = _scores(centres - middle, planes.reshape(len(planes), -1) - middle[:, None])
        return jnp.argmin(scores, axis=0).astype(jnp.int32).reshape(rows, width)

    return jax.lax.map(part, jnp.arange(strips)).reshape(strips * rows, width)[:height]
