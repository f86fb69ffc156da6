"""K-means (Lloyd 1982) with greedy k-means++ (Arthur, Vassilvitskii 2007); also in mini-batches."""

import functools

import jax
import jax.numpy as jnp

from segjax import contracts
from segjax.classical import barriers, descriptors, lloyd
from segjax.errors import InputError

INITS = ("k-means++", "random")


@contracts.of_image
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
    """The K-means clusters of an image's pixels: image [H, W, 3] -> int32 [H, W].

    Args:
        image: see `contracts.image`.
        clusters: K, at most H W.
        features, position, texture: `kind`, `position` and `texture` of
            `descriptors.describe_pixels`.
        init, restarts, tol, max_iterations, seed: see `fit`.

    Returns:
        Clusters numbered from 0 in the raster order of their first pixels; fewer than K if the
        image has fewer different pixels. A cluster may have many pieces.

    Raises:
        InputError: if an option is not allowed.
    """
    height, width = image.shape[:2]
    planes = descriptors.describe_pixels(image, features, position=position, texture=texture)
    result = _fit(
        planes.reshape(len(planes), -1), None, clusters, init, restarts, tol, max_iterations, seed
    )
    return _number(result.assignment, clusters).reshape(height, width)


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
) -> lloyd.Fit:
    """Clusters of points by Lloyd's algorithm: numbers [N, F] -> lloyd.Fit.

    The centre of an empty cluster moves to the point farthest from all other centres.

    Args:
        points: finite, computed in float32; features should have similar ranges.
        clusters: K, 1 to N.
        start: [K, F], finite, initial centres instead of `init`.
        init: "k-means++": each next centre is the best of 2 + log K points drawn with probability
            proportional to the squared distance from the centres so far. "random": different
            points, all equally likely.
        restarts: number of starts; the result with the least inertia is kept.
        tol: the iteration ends when the sum of the centres' squared moves is at most this share of
            the mean variance of the features.
        max_iterations: the iteration ends after this many moves in any case.
        seed: seed of the random numbers.

    Raises:
        InputError: if an option is not allowed or an array is not of its kind.
    """
    points = contracts.numbers(points, "points", "[N, F]")
    if start is not None:
        start = contracts.numbers(start, "start", "[K, F]")
    return _fit_points(points, start, clusters, init, restarts, tol, max_iterations, seed)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5, 6, 7))
def _fit_points(points, start, *options) -> lloyd.Fit:
    return _fit(points.T, start, *options)


def _fit(planes, start, clusters, init, restarts, tol, max_iterations, seed) -> lloyd.Fit:
    """`fit` for points float [F, N]."""
    count, size = planes.shape
    _check(clusters, size, init=init, restarts=restarts, tol=tol, max_iterations=max_iterations)
    if start is not None and (start.shape != (clusters, count) or restarts != 1):
        raise InputError(
            f"start is {start.shape} with restarts={restarts}; ({clusters}, {count}) with "
            "restarts=1 is allowed."
        )
    blocks = lloyd.to_blocks(planes.astype(jnp.float32), clusters)
    iterate = functools.partial(lloyd.iterate, blocks, tol=tol, max_iterations=max_iterations)
    if start is not None:
        result = iterate(start.astype(jnp.float32) - blocks.middle)
    elif restarts == 1:
        result = iterate(lloyd.start(jax.random.key(seed), blocks, clusters, init))
    else:
        keys = jax.random.split(jax.random.key(seed), restarts)
        starts = jax.vmap(lambda key: lloyd.start(key, blocks, clusters, init))(keys)
        result = jax.vmap(iterate)(starts)
        best = jnp.argmin(result.inertia)
        result = jax.tree.map(lambda each: each[best], result)
    return result._replace(
        centres=result.centres + blocks.middle, assignment=result.assignment.ravel()[:size]
    )


def _check(clusters: int, size: int, **options) -> None:
    if not 1 <= clusters <= size:
        raise InputError(f"clusters is {clusters}; 1 to {size}, the number of points, is allowed.")
    if options["init"] not in INITS:
        raise InputError(f"init is {options['init']!r}; {' and '.join(INITS)} are allowed.")
    for key, least in (("restarts", 1), ("tol", 0), ("max_iterations", 1)):
        if options[key] < least:
            raise InputError(f"{key} is {options[key]}; at least {least} is allowed.")


def _number(labels: jax.Array, clusters: int) -> jax.Array:
    """Clusters renumbered by their first pixels, without gaps: int32 [N] -> int32 [N]."""
    place = jnp.arange(labels.size, dtype=jnp.int32)
    first = jnp.full(clusters, labels.size, jnp.int32).at[labels].min(place)
    return jnp.argsort(jnp.argsort(first)).astype(jnp.int32)[labels]


# Mini-batches


@contracts.of_image
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
    """Mini-batch K-means for large images (Sculley 2010): image [H, W, 3] -> int32 [H, W].

    A centre is the mean of all sampled pixels that it has received: the n-th pixel moves it by 1/n
    of their difference. Descriptors exist for one batch or one strip of rows at a time.

    Args:
        image: see `contracts.image`.
        clusters: K, at most H W and `batch`.
        features, position: see `kmeans`; "texture" needs the whole image and is not allowed.
        batch: pixels drawn, with replacement, in every step.
        steps: number of batches; the first also gives the initial centres, by k-means++.
        seed: seed of the random numbers.

    Returns:
        Clusters as `kmeans` returns them.

    Raises:
        InputError: if an option is not allowed.
    """
    height, width = image.shape[:2]
    _check_minibatch(features, clusters, height * width, batch, steps)
    scale = position / max(height, width)
    key = jax.random.key(seed)

    def sample(step: jax.Array) -> lloyd.Blocks:
        key_y, key_x = jax.random.split(jax.random.fold_in(key, step))
        y = jax.random.randint(key_y, (1, batch), 0, height)
        x = jax.random.randint(key_x, (1, batch), 0, width)
        planes = descriptors.describe_points(
            image[y, x], y.astype(jnp.float32), x.astype(jnp.float32), features, scale=scale
        )
        return lloyd.to_blocks(planes[:, 0], clusters)

    def body(step: jax.Array, carry):
        centres, seen = carry
        blocks = sample(step)
        label = barriers.materialize(
            lambda: lloyd.assign(blocks, centres - blocks.middle), centres[0, 0]
        )
        sums = lloyd.sums(blocks, label, clusters, anchor=centres[0, 0])
        total = seen + sums[:, -1]
        push = sums[:, :-1] + sums[:, -1:] * (blocks.middle - centres)
        centres = centres + push / jnp.maximum(total, 1)[:, None]
        return lloyd.reseed(blocks, centres - blocks.middle, total == 0) + blocks.middle, total

    first = sample(jnp.int32(0))
    start = lloyd.start(key, first, clusters, "k-means++") + first.middle
    centres, _ = jax.lax.fori_loop(0, steps, body, (start, jnp.zeros(clusters)))
    labels = _assign_rows(image, centres, features, scale)
    return _number(labels.ravel(), clusters).reshape(height, width)


def _check_minibatch(features: str, clusters: int, size: int, batch: int, steps: int) -> None:
    descriptors.check(features, descriptors.POINTWISE)
    for key, value in (("batch", batch), ("steps", steps)):
        if value < 1:
            raise InputError(f"{key} is {value}; at least 1 is allowed.")
    if not 1 <= clusters <= min(batch, size):
        raise InputError(
            f"clusters is {clusters}; 1 to {min(batch, size)}, the smaller of the numbers of "
            "pixels in the image and in a batch, is allowed."
        )


def _assign_rows(image: jax.Array, centres: jax.Array, kind: str, scale: float) -> jax.Array:
    """The nearest centre of every pixel, computed in strips of rows: int32 [H, W]."""
    height, width = image.shape[:2]
    rows = min(height, max(1, lloyd.SCORES // (width * len(centres))))
    strips = -(-height // rows)
    image = jnp.pad(image, ((0, strips * rows - height), (0, 0), (0, 0)))
    columns = jax.lax.broadcasted_iota(jnp.float32, (rows, width), 1)
    middle = 0.5 * (centres.min(axis=0) + centres.max(axis=0))

    def part(index: jax.Array) -> jax.Array:
        y = jax.lax.broadcasted_iota(jnp.float32, (rows, width), 0) + index * rows
        colors = jax.lax.dynamic_slice_in_dim(image, index * rows, rows)
        planes = descriptors.describe_points(colors, y, columns, kind, scale=scale)
        points = planes.reshape(len(planes), -1) - middle[:, None]
        scores = lloyd.scores(centres - middle, points)
        return jnp.argmin(scores, axis=0).astype(jnp.int32).reshape(rows, width)

    return jax.lax.map(part, jnp.arange(strips)).reshape(strips * rows, width)[:height]
