"""Spectral clustering of the pixel grid: normalised cuts and their relatives.

Links join each pixel to its neighbours within a radius, with weights that fall with distance and
with difference of colour (Shi and Malik, "Normalized cuts and image segmentation", PAMI 2000,
section 3). The first eigenvectors of the graph's Laplacian embed the pixels; K-means or the nearest
discrete solution divides the embedding into segments. No matrix is stored: a product with the graph
is a sum of shifted images. The eigenvectors are computed on coarse grids first, of half, a quarter,
... of the size, and each grid starts from the result of the coarser one.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from segjax import arrays, contracts
from segjax.classical import batches, color, eigen, kmeans, regions
from segjax.errors import InputError, choose

LAPLACIANS = ("symmetric", "random_walk", "unnormalised")
ASSIGNMENTS = ("kmeans", "discretize")

Links = dict[tuple[int, int], jax.Array]
"""(down, right) -> float32 [H, W]: weights of the links from pixels to those at this offset, 0 if
that is outside. It holds half of the offsets; the others are the same links from the other end."""

_COARSEST = 32  # pixels per vector; a grid with fewer is not coarsened
_COARSE_ROUNDS = 10  # of the coarsest grid, which is cheap and should be solved well


@contracts.of_image
@functools.partial(
    jax.jit,
    static_argnames=(
        "segments", "radius", "sigma_color", "sigma_position", "laplacian", "assign", "side",
        "degree", "rounds", "tolerance", "seed",
    ),
)  # fmt: skip
def spectral(
    image: jax.Array,
    *,
    segments: int = 8,
    radius: float = 3.0,
    sigma_color: float = 2.0,
    sigma_position: float = 3.0,
    laplacian: str = "symmetric",
    assign: str = "kmeans",
    side: int = 96,
    degree: int = 20,
    rounds: int = 3,
    tolerance: float = 3e-4,
    seed: int = 0,
) -> jax.Array:
    """Spectral clustering: image [H, W, 3] -> int32 [H, W], 0 to K - 1, K at most `segments`.

    Args:
        image: see `contracts.image`.
        segments: number of clusters and of eigenvectors; a cluster may have several pieces.
        radius: length of the longest links in pixels of the graph.
        sigma_color: CIELAB difference at which a weight has fallen to 1/e.
        sigma_position: distance, in pixels of the graph, at which a weight has fallen to 1/e.
        laplacian: "symmetric", with rows of its eigenvectors scaled to unit length (Ng, Jordan and
            Weiss 2001); "random_walk" (Shi and Malik 2000); "unnormalised", D - W.
        assign: "kmeans", or "discretize" (Yu and Shi 2003).
        side: longest side of the graph; a larger image is reduced to it by area, and its labels are
            enlarged by the nearest pixel.
        degree, rounds, tolerance: see `eigen.smallest`.
        seed: seed of the eigensolver's start and of the assignment.

    Raises:
        InputError: if an option is out of its range.
    """
    height, width = graph_shape(arrays.image_size(image), side)
    _check(segments, height * width, radius, sigma_color, sigma_position, laplacian, assign)

    def segment(image: jax.Array) -> jax.Array:
        planes = _reduced_planes(image, (height, width))
        _, embedding = grid_vectors(
            grid_links(planes, radius, sigma_color, sigma_position), (height, width),
            wanted=segments, normalised=laplacian != "unnormalised", key=jax.random.key(seed),
            degree=degree, rounds=rounds, tolerance=tolerance,
        )  # fmt: skip
        rows = embedding[..., :segments].reshape(-1, segments)
        if laplacian == "symmetric":
            rows = unit_rows(rows)
        labels = cluster(rows, segments, assign, seed).reshape(height, width)
        return regions.relabel(enlarge(labels, arrays.image_size(image)))

    return batches.one_by_one(segment, image)


def cluster(rows: jax.Array, segments: int, assign: str, seed: int) -> jax.Array:
    """The clusters of embedded nodes: float32 [N, segments] -> int32 [N]."""
    if assign == "discretize":
        return discretize(rows, seed=seed)
    return kmeans.fit(rows, clusters=segments, seed=seed).assignment


def unit_rows(rows: jax.Array) -> jax.Array:
    """The rows divided by their lengths; rows of zeros stay zero."""
    return rows / jnp.maximum(jnp.sqrt(jnp.sum(rows * rows, axis=-1, keepdims=True)), 1e-20)


def discretize(rows: jax.Array, *, rounds: int = 20, seed: int = 0) -> jax.Array:
    """The nearest discrete solution: float32 [N, K] -> int32 [N], 0 to K - 1.

    Yu and Shi, "Multiclass spectral clustering", ICCV 2003, table 1: rotates the embedding until
    its rows, scaled to unit length, lie as near to the coordinate axes as possible. The first axis
    is a random row, each next one the row least parallel to the chosen ones.

    Args:
        rows: the first K eigenvectors, one row for each node.
        rounds: largest number of rotations.
        seed: seed of the first axis.

    Raises:
        InputError: if the rows are no finite numbers.
    """
    rows = unit_rows(contracts.numbers(rows, "rows", "[N, K]"))
    count, clusters = rows.shape
    first = rows[jax.random.randint(jax.random.key(seed), (), 0, count)]

    def choose(carry, _):
        axis, parallel = carry
        parallel = parallel + jnp.abs(jnp.sum(rows * axis, axis=1))
        return (rows[jnp.argmin(parallel)], parallel), axis

    _, turn = jax.lax.scan(choose, (first, jnp.zeros(count)), length=clusters)

    def assign(turn):
        return jnp.argmax(eigen.product(rows, turn), axis=1).astype(jnp.int32)

    def more(carry):
        done, _, gain, before = carry
        return (done < rounds) & (gain > before * (1 + 1e-6))

    def body(carry):
        done, turn, before, _ = carry
        chosen = jax.nn.one_hot(assign(turn), clusters, dtype=jnp.float32)
        left, gains, right = jnp.linalg.svd(eigen.product(chosen.T, rows))
        # A cluster without rows leaves its axis free.
        return done + 1, eigen.product(right.T, left.T), jnp.sum(gains), before

    carry = (0, turn.T, jnp.array(1e-30), jnp.array(0.0))
    return assign(jax.lax.while_loop(more, body, carry)[1])


def grid_links(
    planes: tuple[jax.Array, ...], radius: float, sigma_color: float, sigma_position: float
) -> Links:
    """Links of weight exp(-|difference|^2 / sigma_color^2 - distance^2 / sigma_position^2).

    Args:
        planes: channels, float32 [H, W] each.
        radius, sigma_color, sigma_position: see `spectral`.
    """
    height, width = planes[0].shape
    links = {}
    for down in range(min(int(radius), height - 1) + 1):
        for right in range(-min(int(radius), width - 1), min(int(radius), width - 1) + 1):
            square = down * down + right * right
            if (down, right) <= (0, 0) or square > radius * radius:
                continue
            # Differences to zeros outside the image get weight 0 below.
            gap = sum((plane - _shifted(plane, (down, right))) ** 2 for plane in planes)
            weight = jnp.exp(-gap / sigma_color**2 - square / sigma_position**2)
            inside = _shifted(jnp.ones((height, width)), (down, right))
            links[down, right] = weight * inside
    return links


def grid_vectors(
    links: Links,
    shape: tuple[int, int],
    *,
    wanted: int,
    normalised: bool,
    key: jax.Array,
    degree: int = 20,
    rounds: int = 3,
    tolerance: float = 3e-4,
) -> tuple[jax.Array, jax.Array]:
    """The solutions of L u = value M u with the smallest values, where L = D - W is the Laplacian.

    M is the diagonal of the pixels' degrees, D, or of ones. D and W include links of weight 1 from
    each pixel to itself.

    Args:
        links: off-diagonal weights.
        shape: H, W.
        wanted: number of pairs that must be accurate.
        normalised: whether M = D; then the values are those of both normalised Laplacians, u are
            the vectors of the random walk's Laplacian and D^1/2 u those of the symmetric one.
        key: key of the random start.
        degree, rounds, tolerance: see `eigen.smallest`; the coarsest grid has at least
            10 rounds.

    Returns:
        float32 [M] and [H, W, M], M at least `wanted`.
    """
    mass = degrees(links, shape) + 1 if normalised else jnp.ones(shape)
    vectors = eigen.block(wanted, shape[0] * shape[1])
    grids = [(links, mass)]
    while grids[-1][1].size > _COARSEST * vectors:
        grids.append((_coarser(*grids[-1]), _pool(grids[-1][1])))
    embedding = jax.random.normal(key, (*grids[-1][1].shape, vectors)).at[..., 0].set(1)
    limit = max(rounds, _COARSE_ROUNDS)
    for links, mass in reversed(grids):
        height, width = mass.shape
        start = jnp.repeat(jnp.repeat(embedding, 2, axis=0), 2, axis=1)
        start = embedding if mass is grids[-1][1] else start[:height, :width]
        values, embedding = _solve(
            links, mass, start, wanted=wanted, degree=degree, rounds=limit, tolerance=tolerance
        )
        limit = rounds
    return values, embedding


def degrees(links: Links, shape: tuple[int, int]) -> jax.Array:
    """The sum of each pixel's links: float32 [H, W]."""
    total = jnp.zeros(shape)
    for (down, right), weight in links.items():
        total = total + weight + _shifted(weight, (-down, -right))
    return total


def _solve(links: Links, mass: jax.Array, start: jax.Array, **options):
    """`eigen.smallest` for M^-1/2 L M^-1/2, with vectors u as input and output."""
    height, width, vectors = start.shape
    root = jnp.sqrt(mass)
    diagonal = degrees(links, (height, width)) / mass
    steps = [down * width + right for down, right in links]
    # Pixels are flattened, with zeros before and after for neighbours outside the image.
    reach = max([abs(step) for step in steps], default=0)
    size = height * width
    around = ((reach, reach), (0, 0))
    flat = [
        jnp.pad((weight / root / _shifted(root, offset, 1.0)).ravel(), reach)
        for offset, weight in links.items()
    ]
    weights = jnp.stack(flat) if flat else jnp.zeros((0, size))

    def apply(x: jax.Array) -> jax.Array:
        total = diagonal.reshape(-1, 1) * x[reach : reach + size]
        for row, step in enumerate(steps):
            for begin, weight in ((reach + step, reach), (reach - step, reach - step)):
                link = weights[row, weight : weight + size, None]
                total = total - link * x[begin : begin + size]
        return jnp.pad(total, around)

    start = jnp.pad((start * root[..., None]).reshape(size, vectors), around)
    values, solution = eigen.smallest(
        apply, start, bound=jnp.maximum(2 * jnp.max(diagonal), 1e-6), **options
    )
    solution = solution[reach : reach + size].reshape(height, width, vectors)
    return values, solution / root[..., None]


def _coarser(links: Links, mass: jax.Array) -> Links:
    """Links between 2 x 2 blocks of pixels: the sums of the links between their pixels."""
    height, width = mass.shape
    coarse: Links = {}
    for (down, right), weight in links.items():
        weight = jnp.pad(weight, ((0, height % 2), (0, width % 2)))
        for row in (0, 1):
            for column in (0, 1):
                offset = (row + down) // 2, (column + right) // 2
                part = weight[row::2, column::2]
                if offset == (0, 0):
                    continue
                if offset < (0, 0):  # the same link from its other end
                    offset = -offset[0], -offset[1]
                    part = _shifted(part, offset)
                coarse[offset] = coarse[offset] + part if offset in coarse else part
    return coarse


def _pool(values: jax.Array) -> jax.Array:
    """Sums over 2 x 2 blocks: [H, W] -> [ceil(H / 2), ceil(W / 2)]."""
    height, width = values.shape
    values = jnp.pad(values, ((0, height % 2), (0, width % 2)))
    return values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]


def _shifted(values: jax.Array, offset: tuple[int, int], fill: float = 0.0) -> jax.Array:
    """values[y + down, x + right], or `fill` outside: [H, W] -> [H, W]."""
    down, right = offset
    # A negative amount crops.
    return jax.lax.pad(values, jnp.float32(fill), ((-down, down, 0), (-right, right, 0)))


def graph_shape(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """H, W of the graph: those of the image, reduced to `side` if it is smaller.

    Raises:
        InputError: if `side` is below 1.
    """
    if side < 1:
        raise InputError(f"side is {side}; at least 1 is allowed.")
    scale = min(1.0, side / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def shrink(image: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """The image reduced to a shape: [H, W, 3], 0 to 255 -> float32 [h, w, 3], 0 to 1.

    It takes means over areas; an image that has the shape already is returned unchanged.
    """
    if image.shape[:2] == shape:
        return image
    rows, columns = (_area(*sizes) for sizes in zip(image.shape[:2], shape, strict=True))
    planes = [
        eigen.product(eigen.product(rows, image[..., channel] / 255.0), columns.T)
        for channel in range(3)
    ]
    return jnp.stack(planes, axis=-1)


def _reduced_planes(image: jax.Array, shape: tuple[int, int]) -> tuple[jax.Array, ...]:
    """CIELAB planes, float32 [h, w], of the image reduced to a shape."""
    if arrays.image_size(image) == shape:
        return color.image_planes(image)
    return color.lab_planes(shrink(image, shape))


def _area(size_in: int, size_out: int) -> jax.Array:
    """float32 [size_out, size_in]: the share of each input pixel in the mean of each output."""
    edges = np.arange(size_out + 1) * (size_in / size_out)
    begin, end = np.arange(size_in), np.arange(size_in) + 1
    shared = np.minimum(edges[1:, None], end) - np.maximum(edges[:-1, None], begin)
    return jnp.asarray(np.maximum(shared, 0) * (size_out / size_in), jnp.float32)


def enlarge(labels: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """The label of the nearest pixel: [h, w] -> [H, W]."""
    rows, columns = (
        ((np.arange(large) + 0.5) * small / large).astype(np.int32)
        for small, large in zip(labels.shape, shape, strict=True)
    )
    return labels[rows][:, columns]


def _check(segments, pixels, radius, sigma_color, sigma_position, laplacian, assign):
    if not 1 <= segments <= pixels:
        raise InputError(f"segments is {segments}; 1 to the graph's {pixels} pixels are allowed.")
    if not (math.isfinite(radius) and radius >= 1):
        raise InputError(f"radius is {radius}; at least 1 is allowed.")
    for name, value in (("sigma_color", sigma_color), ("sigma_position", sigma_position)):
        if not value > 0:
            raise InputError(f"{name} is {value}; numbers above 0 are allowed.")
    choose("laplacian", laplacian, LAPLACIANS)
    choose("assign", assign, ASSIGNMENTS)
