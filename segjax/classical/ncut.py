"""Normalised cuts of the graph of superpixels: a whole photograph in one small dense problem.

Shi and Malik, "Normalized cuts and image segmentation", PAMI 2000: a cut's cost is its weight
over the weight that ends in either side. A graph is cut in two again and again while the cost is
small (their section 3.1), or into a given number of parts at once (Yu and Shi, ICCV 2003). The
nodes are SLIC's regions, so the graph has hundreds of nodes where the pixel grid has 10^5.
"""

import functools

import jax
import jax.numpy as jnp

from segjax.classical import color, eigen, slic, spectral
from segjax.classical import regions as region_tools
from segjax.errors import InputError, choose

FORMS = ("recursive", "kway")

_SELF = 1e-3  # weight of a node to itself, so that one without links has a degree
_FLOOR = 1e-5  # the least weight of neighbours: a tie that every other weight outbids
_BINS = 12
_RANGES = ((0.0, 100.0), (-60.0, 60.0), (-60.0, 60.0))  # of L, a, b in histograms
_DEGREE = 100  # products with the graph between two Rayleigh quotients
_FILTERS = 4
_GROWTH = 30.0  # logarithm of the largest gain of a filter; float32 holds the square of it


@functools.partial(
    jax.jit,
    static_argnames=(
        "regions", "form", "threshold", "segments", "sigma_color", "sigma_boundary", "histogram",
        "second", "assign", "connected", "seed",
    ),
)  # fmt: skip
def ncut_regions(
    image: jax.Array,
    *,
    regions: int = 400,
    form: str = "recursive",
    threshold: float = 0.01,
    segments: int = 8,
    sigma_color: float = 9.0,
    sigma_boundary: float = 7.0,
    histogram: float = 4.0,
    second: float = 0.3,
    assign: str = "discretize",
    connected: bool = True,
    seed: int = 0,
) -> jax.Array:
    """Normalised cuts on SLIC regions: uint8 [H, W, 3] -> int32 [H, W], 0 to K - 1.

    Args:
        image: sRGB.
        regions: superpixels asked for; more than there are pixels are not made.
        form: "recursive", two-way cuts while one costs at most `threshold`; "kway", `segments`
            parts at once.
        threshold: 0 to 2, only for "recursive".
        segments, assign: only for "kway"; `assign` as of `spectral.spectral`.
        sigma_color, sigma_boundary, histogram, second: of `similarity`.
        connected: every piece becomes a segment of its own. A cut may leave one side in several.
        seed: of the start vectors and the assignment.

    Raises:
        InputError: for options that do not fit.
    """
    superpixels = slic.slic(image, regions=min(regions, image.shape[0] * image.shape[1]))
    return cut(
        image, superpixels, regions=regions, form=form,
        threshold=threshold, segments=segments,
        sigma_color=sigma_color, sigma_boundary=sigma_boundary, histogram=histogram,
        second=second, assign=assign, connected=connected, seed=seed,
    )  # fmt: skip


def cut(
    image: jax.Array,
    labels: jax.Array,
    *,
    regions: int,
    form: str,
    threshold: float,
    segments: int,
    sigma_color: float,
    sigma_boundary: float,
    histogram: float,
    second: float,
    assign: str,
    connected: bool,
    seed: int,
) -> jax.Array:
    """Cuts the graph of any superpixels; the options are those of `ncut_regions`.

    Args:
        image: uint8 [H, W, 3].
        labels: int32 [H, W], 0 to n - 1, none missing.
        regions: capacity, n at most.
    """
    _check(regions, form, threshold, segments, sigma_color, sigma_boundary, assign)

    def run(image: jax.Array, labels: jax.Array) -> jax.Array:
        weights, touching = similarity(
            image, labels, regions=regions, sigma_color=sigma_color,
            sigma_boundary=sigma_boundary, histogram=histogram, second=second,
        )  # fmt: skip
        count = jnp.max(labels) + 1
        if form == "recursive":
            parts = recursive_cut(weights, count, threshold=threshold, seed=seed)
        else:
            parts = kway_cut(weights, count, segments=segments, assign=assign, seed=seed)
        if connected:
            parts = _pieces(parts, touching)
        return region_tools.relabel(parts[labels])

    return eigen.one_by_one(run, image, labels)


def similarity(
    image: jax.Array,
    labels: jax.Array,
    *,
    regions: int,
    sigma_color: float,
    sigma_boundary: float,
    histogram: float,
    second: float,
) -> tuple[jax.Array, jax.Array]:
    """The region graph: weights of links, and which regions touch.

    Two regions are alike by exp(-|difference of mean CIELAB|^2 / sigma_color^2 - histogram times
    (1 - Bhattacharyya coefficient), summed over L, a, b). A shared boundary lets through
    exp(-(mean gradient / sigma_boundary)^2). The weight of neighbours is the product of both; that
    of neighbours' neighbours is likeness times what the ways by one region between let through,
    1 at most, times `second`.

    Args:
        image: uint8 [H, W, 3].
        labels: int32 [H, W], 0 to regions - 1.
        regions: capacity K.
        sigma_color: in CIELAB units.
        sigma_boundary: in CIELAB units a pixel.
        histogram, second: factors, 0 or more.

    Returns:
        float32 [K, K], symmetric, 0 on the diagonal; bool [K, K].
    """
    planes = color.lab_planes(image)
    counts, sums = region_tools.adjacency(labels, _gradient(planes), regions=regions)
    touching = counts > 0
    mean = region_tools.means(jnp.stack(planes, axis=-1), labels, regions=regions)
    unlike = sum((mean[:, None, c] - mean[None, :, c]) ** 2 for c in range(3)) / sigma_color**2
    for plane, (low, high) in zip(planes, _RANGES, strict=True):
        bins = jnp.clip((plane - low) * (_BINS / (high - low)), 0, _BINS - 1).astype(jnp.int32)
        table = jnp.zeros(regions * _BINS).at[(labels * _BINS + bins).ravel()].add(1, mode="drop")
        table = table.reshape(regions, _BINS)
        roots = jnp.sqrt(table / jnp.maximum(jnp.sum(table, axis=1, keepdims=True), 1))
        unlike = unlike + histogram * (1 - eigen.product(roots, roots.T))
    alike = jnp.exp(-unlike)
    strength = sums / jnp.maximum(counts, 1) / sigma_boundary
    passed = jnp.where(touching, jnp.exp(-(strength**2)), 0)
    ways = jnp.minimum(eigen.product(passed, passed), 1)
    weights = alike * jnp.where(touching, passed, second * ways) + _FLOOR * touching
    # Rounding makes products of matrices a little unsymmetric.
    weights = 0.5 * (weights + weights.T)
    return jnp.where(jnp.eye(regions, dtype=bool), 0, weights), touching


def recursive_cut(
    weights: jax.Array, count: jax.Array | int, *, threshold: float, seed: int = 0
) -> jax.Array:
    """Cuts every part in two while that costs at most `threshold`: float32 [K, K] -> int32 [K].

    A part is cut at the best place along its second eigenvector. All parts are cut at once: their
    graph is the given one without the links between them.

    Args:
        weights: symmetric, 0 on the diagonal.
        count: nodes there are, the first ones; the rest of K is empty.
        threshold: NCut = cut/assoc(A) + cut/assoc(B), A and B the sides within their part.
        seed: draws the start of the eigenvectors.

    Returns:
        Parts 0, 1, ...; an empty node has a part of its own, numbered as it is.
    """
    own = jnp.arange(weights.shape[0], dtype=jnp.int32)
    start = jax.random.normal(jax.random.key(seed), own.shape)

    def body(carry):
        parts, used, _ = carry
        inside = jnp.where(parts[:, None] == parts, weights, 0)
        degree = jnp.sum(inside, axis=1) + _SELF
        vector = _second_vectors(inside, degree, parts, start)
        new, splits = _sweep(inside, degree, parts, vector, used, threshold)
        return new, used + splits, splits > 0

    # Numbers below `count` are free for parts, since there are no more parts than nodes.
    carry = (jnp.where(own < count, 0, own), jnp.int32(1), jnp.array(True))
    return jax.lax.while_loop(lambda carry: carry[2], body, carry)[0]


def _second_vectors(inside, degree, parts, start):
    """Every part's second eigenvector of the random walk, side by side: float32 [K].

    The Rayleigh quotient of a part's vector is never below its second eigenvalue, so a Chebyshev
    filter that damps everything above the quotient brings it down, round by round.
    """
    root = jnp.sqrt(degree)

    def by_part(values):
        return jnp.zeros_like(values).at[parts].add(values)[parts]

    # Each part's first vector, D^1/2, gets the value 2 instead of 0: the end of the spectrum.
    first = root / jnp.sqrt(by_part(degree))
    within = parts[:, None] == parts
    matrix = jnp.where(within, 2 * first[:, None] * first, 0) - inside / (root[:, None] * root)
    diagonal = 1 - _SELF / degree

    def apply(x):
        return diagonal * x + eigen.product(matrix, x)

    def unit(x):
        x = x - first * by_part(first * x)
        return x / jnp.maximum(jnp.sqrt(by_part(x * x)), 1e-30)

    def body(_, x):
        quotient = by_part(x * apply(x))
        half = jnp.clip(1 - 0.5 * quotient, 1e-3, 1 - 1e-7)
        middle = 2 - half
        steps = jnp.minimum(_GROWTH / jnp.arccosh(middle / half), _DEGREE)

        def step(done, pair):
            before, now = pair
            new = 2 * (apply(now) - middle * now) / half - before
            return jnp.where(done < steps, now, before), jnp.where(done < steps, new, now)

        pair = x, (apply(x) - middle * x) / half
        return unit(jax.lax.fori_loop(1, _DEGREE, step, pair)[1])

    return jax.lax.fori_loop(0, _FILTERS, body, unit(start)) / root


def _sweep(inside, degree, parts, vector, used, threshold):
    """The best cut along the vector of every part, made where it costs at most the threshold.

    Returns:
        int32 [K], new parts, and how many were cut.
    """
    nodes = parts.shape[0]
    place = jnp.arange(nodes, dtype=jnp.int32)
    order = jnp.lexsort((vector, parts))
    part, volume = parts[order], degree[order]
    sorted_links = inside[order][:, order]
    # A node that changes sides cuts its links to those that stay and mends those to the others.
    change = jnp.sum(sorted_links * jnp.sign(place - place[:, None]), axis=1)
    weight = jnp.cumsum(change)
    total = jnp.zeros(nodes).at[parts].add(degree)
    before = jnp.cumsum(total) - total
    low = jnp.cumsum(volume) - before[part]
    high = total[part] - low
    last = jnp.append(part[1:] != part[:-1], True)
    weight = jnp.maximum(weight, 0)  # rounding
    cost = weight / jnp.maximum(low, _SELF) + weight / jnp.maximum(high, _SELF)
    cost = jnp.where(last, jnp.inf, cost)
    best = jnp.full(nodes, jnp.inf).at[part].min(cost)
    ends = jnp.full(nodes, nodes).at[part].min(jnp.where(cost == best[part], place, nodes))
    split = best <= threshold
    number = used + jnp.cumsum(split.astype(jnp.int32)) - 1
    moved = split[part] & (place > ends[part])
    new = jnp.where(moved, number[part], part)
    return parts.at[order].set(new), jnp.sum(split.astype(jnp.int32))


def kway_cut(
    weights: jax.Array, count: jax.Array | int, *, segments: int, assign: str, seed: int = 0
) -> jax.Array:
    """Cuts into `segments` parts at once: float32 [K, K] -> int32 [K].

    Args:
        weights, count: as of `recursive_cut`.
        segments: parts, and eigenvectors.
        assign: "kmeans" or "discretize", of rows of unit length.
        seed: of the start and the assignment.
    """
    nodes = weights.shape[0]
    exists = (jnp.arange(nodes) < count)[:, None]
    degree = jnp.sum(weights, axis=1) + _SELF
    root = jnp.sqrt(degree)
    matrix = weights / (root[:, None] * root)
    # Empty nodes go to the end of the spectrum that nobody asks for.
    diagonal = jnp.where(exists, 1 - _SELF / degree[:, None], 2)
    vectors = eigen.block(segments, nodes)
    start = jax.random.normal(jax.random.key(seed), (nodes, vectors)).at[:, 0].set(root)
    _, found = eigen.smallest(
        lambda x: diagonal * x - eigen.product(matrix, x), jnp.where(exists, start, 0),
        wanted=min(segments, nodes), bound=2.0, degree=40, rounds=12, tolerance=1e-3,
    )  # fmt: skip
    rows = spectral.unit_rows(found[:, :segments])
    # An empty node repeats one that exists, and so has no cluster of its own.
    rows = rows[jnp.arange(nodes) % jnp.maximum(count, 1)]
    return spectral.cluster(rows, segments, assign, seed)


def _pieces(parts, touching):
    """Parts cut up into those of their nodes that hang together: int32 [K] -> int32 [K]."""
    joined = touching & (parts[:, None] == parts)
    own = jnp.arange(parts.shape[0], dtype=jnp.int32)

    def body(carry):
        piece, _ = carry
        new = jnp.minimum(piece, jnp.min(jnp.where(joined, piece, own.size), axis=1))
        new = new[new]
        return new, jnp.any(new != piece)

    return jax.lax.while_loop(lambda carry: carry[1], body, (own, jnp.array(True)))[0]


def _gradient(planes):
    """Length of the gradient of all channels, after a blur of 5 x 5: float32 [H, W]."""
    square = 0
    for plane in planes:
        for axis in (0, 1):
            plane = sum(
                share / 16 * _shift(plane, step, axis)
                for step, share in zip(range(-2, 3), (1, 4, 6, 4, 1), strict=True)
            )
        for axis in (0, 1):
            square = square + (0.5 * (_shift(plane, 1, axis) - _shift(plane, -1, axis))) ** 2
    return jnp.sqrt(square)


def _shift(plane, step, axis):
    """plane[y + step] along an axis; the border goes on."""
    pads = [(0, 0)] * 2
    pads[axis] = (max(-step, 0), max(step, 0))
    padded = jnp.pad(plane, pads, mode="edge")
    return jax.lax.slice_in_dim(padded, max(step, 0), max(step, 0) + plane.shape[axis], axis=axis)


def _check(regions, form, threshold, segments, sigma_color, sigma_boundary, assign):
    choose("form", form, FORMS)
    if not 0 <= threshold <= 2:
        raise InputError(f"threshold is {threshold}; 0 to 2 are allowed.")
    if not 1 <= segments <= regions:
        raise InputError(f"segments is {segments}; 1 to the {regions} regions are allowed.")
    for name, value in (("sigma_color", sigma_color), ("sigma_boundary", sigma_boundary)):
        if not value > 0:
            raise InputError(f"{name} is {value}; numbers above 0 are allowed.")
    choose("assign", assign, spectral.ASSIGNMENTS)
