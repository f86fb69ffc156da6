"""Normalised cuts of the superpixel graph, a small dense problem even for a large photograph.

Shi and Malik, "Normalized cuts and image segmentation", PAMI 2000: the cost of a cut is its weight
over the total weight of the links of each side. Parts are cut in two as long as the cost is small
(their section 3.1), or the graph is cut into a given number of parts at once (Yu and Shi, ICCV
2003). The nodes are SLIC's regions: hundreds, where the pixel grid has 10^5.
"""

import functools

import jax
import jax.numpy as jnp

from segjax import contracts
from segjax.classical import batches, color, eigen, slic, spectral
from segjax.classical import regions as region_tools
from segjax.errors import InputError, choose

FORMS = ("recursive", "kway")

_SELF = 1e-3  # weight of a node's link to itself, so that every node has a degree
_FLOOR = 1e-5  # least weight between neighbours, negligible beside other weights
_BINS = 12
_RANGES = ((0.0, 100.0), (-60.0, 60.0), (-60.0, 60.0))  # of the histograms of L, a and b
_DEGREE = 100  # products with the graph between two Rayleigh quotients
_FILTERS = 4
_GROWTH = 30.0  # log of the largest gain of a filter, whose square float32 can hold


@contracts.of_image
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
    """Normalised cuts on SLIC regions: image [H, W, 3] -> int32 [H, W], 0 to K - 1.

    Args:
        image: see `contracts.image`.
        regions: requested superpixels, limited to the number of pixels.
        form: "recursive", two-way cuts that cost at most `threshold`; "kway", `segments` parts at
            once.
        threshold: 0 to 2, only for "recursive".
        segments, assign: only for "kway"; for `assign` see `spectral.spectral`.
        sigma_color, sigma_boundary, histogram, second: see `similarity`.
        connected: makes every connected piece of a part a segment; a cut may leave several pieces.
        seed: seed of the start vectors and the assignment.

    Raises:
        InputError: if an option is out of its range.
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
    """Normalised cuts of given superpixels: int32 [H, W]; for the options see `ncut_regions`.

    Args:
        image: see `contracts.image`.
        labels: int [H, W], superpixels 0 to n - 1 without gaps.
        regions: capacity, n or more.

    Raises:
        InputError: if an option is out of its range or an array is not of its kind.
    """
    _check(regions, form, threshold, segments, sigma_color, sigma_boundary, assign)
    image, labels = _image_and_labels(image, labels, regions)

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

    return batches.one_by_one(run, image, labels)


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
    """The region graph: weights of the links, and which regions touch.

    The likeness of two regions is exp(-|difference of mean CIELAB|^2 / sigma_color^2 - histogram *
    (sum over L, a, b of 1 - Bhattacharyya coefficient)). The permeability of a shared boundary is
    exp(-(mean gradient / sigma_boundary)^2). The weight of neighbours is likeness times
    permeability. The weight of regions with a common neighbour is likeness times `second` times the
    sum of the permeabilities, at most 1, of the ways through one region between them.

    Args:
        image: see `contracts.image`.
        labels: int [H, W], 0 to regions - 1.
        regions: capacity K.
        sigma_color: in CIELAB units.
        sigma_boundary: in CIELAB units a pixel.
        histogram, second: factors, 0 or more.

    Returns:
        float32 [K, K], symmetric, 0 on the diagonal; bool [K, K].

    Raises:
        InputError: if an array is not of its kind.
    """
    image, labels = _image_and_labels(image, labels, regions)
    planes = color.image_planes(image)
    counts, sums = region_tools.adjacency(labels, _gradient(planes), regions=regions)
    touching = counts > 0
    mean = region_tools.means(jnp.stack(planes, axis=-1), labels, regions=regions)
    unlike = sum((mean[:, None, c] - mean[None, :, c]) ** 2 for c in range(3)) / sigma_color**2
    for plane, (low, high) in zip(planes, _RANGES, strict=True):
        bins = jnp.clip((plane - low) * (_BINS / (high - low)), 0, _BINS - 1).astype(jnp.int32)
        places = (labels * _BINS + bins).ravel()
        table = jnp.zeros(regions * _BINS, jnp.int32).at[places].add(1, mode="drop")
        table = table.reshape(regions, _BINS)
        roots = jnp.sqrt(table / jnp.maximum(jnp.sum(table, axis=1, keepdims=True), 1))
        unlike = unlike + histogram * (1 - eigen.product(roots, roots.T))
    alike = jnp.exp(-unlike)
    strength = sums / jnp.maximum(counts, 1) / sigma_boundary
    passed = jnp.where(touching, jnp.exp(-(strength**2)), 0)
    ways = jnp.minimum(eigen.product(passed, passed), 1)
    weights = alike * jnp.where(touching, passed, second * ways) + _FLOOR * touching
    # Rounding makes products of matrices slightly asymmetric.
    weights = 0.5 * (weights + weights.T)
    return jnp.where(jnp.eye(regions, dtype=bool), 0, weights), touching


def _image_and_labels(image, labels, regions):
    image = contracts.image(image)
    form = f"[{image.shape[0]}, {image.shape[1]}]"
    return image, contracts.integers(labels, "labels", form, least=0, most=regions - 1)


def recursive_cut(
    weights: jax.Array, count: jax.Array | int, *, threshold: float, seed: int = 0
) -> jax.Array:
    """Two-way cuts as long as one costs at most `threshold`: numbers [K, K] -> int32 [K].

    A part is cut at the best place along its second eigenvector. All parts are cut at once, on the
    graph without the links between parts.

    Args:
        weights: finite, 0 or more, symmetric, 0 on the diagonal.
        count: number of nodes, the first ones; the rest of K is empty.
        threshold: largest NCut = cut / assoc(A) + cut / assoc(B); A and B are the sides of a part.
        seed: seed of the start vectors.

    Returns:
        Parts 0, 1, ...; each empty node is a part with the node's number.

    Raises:
        InputError: if the weights are of another kind.
    """
    weights = contracts.numbers(weights, "weights", "[K, K]", least=0)
    numbers = jnp.arange(weights.shape[0], dtype=jnp.int32)
    start = jax.random.normal(jax.random.key(seed), numbers.shape)

    def body(carry):
        parts, used, _ = carry
        inside = jnp.where(parts[:, None] == parts, weights, 0)
        degree = jnp.sum(inside, axis=1) + _SELF
        vector = _second_vectors(inside, degree, parts, start)
        new, splits = _sweep(inside, degree, parts, vector, used, threshold)
        return new, used + splits, splits > 0

    # Parts are numbered below `count`, because there are no more parts than nodes.
    carry = (jnp.where(numbers < count, 0, numbers), jnp.int32(1), jnp.array(True))
    return jax.lax.while_loop(lambda carry: carry[2], body, carry)[0]


def _second_vectors(inside, degree, parts, start):
    """The second eigenvectors of the random walks of all parts, in one vector: float32 [K].

    The Rayleigh quotient of a part's vector is never below the part's second eigenvalue, so a
    Chebyshev filter that damps everything above the quotient lowers it round by round.
    """
    root = jnp.sqrt(degree)

    def by_part(values):
        return jnp.zeros_like(values).at[parts].add(values)[parts]

    # The first eigenvector of each part, D^1/2, gets the eigenvalue 2, the end of the spectrum.
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
    """Cuts every part at the best place along its vector if that costs at most the threshold.

    Returns:
        int32 [K], the new parts, and the number of parts that were cut.
    """
    nodes = parts.shape[0]
    place = jnp.arange(nodes, dtype=jnp.int32)
    order = jnp.lexsort((vector, parts))
    part, volume = parts[order], degree[order]
    sorted_links = inside[order][:, order]
    # A node that changes sides cuts its links to later nodes and restores those to earlier ones.
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
    """A cut into `segments` parts at once: numbers [K, K] -> int32 [K].

    Args:
        weights, count: see `recursive_cut`.
        segments: number of parts and of eigenvectors.
        assign: "kmeans" or "discretize", applied to rows of unit length.
        seed: seed of the start vectors and the assignment.

    Raises:
        InputError: if the weights are of another kind.
    """
    weights = contracts.numbers(weights, "weights", "[K, K]", least=0)
    nodes = weights.shape[0]
    exists = (jnp.arange(nodes) < count)[:, None]
    degree = jnp.sum(weights, axis=1) + _SELF
    root = jnp.sqrt(degree)
    matrix = weights / (root[:, None] * root)
    # Empty nodes go to the upper end of the spectrum, which is not computed.
    diagonal = jnp.where(exists, 1 - _SELF / degree[:, None], 2)
    vectors = eigen.block(segments, nodes)
    start = jax.random.normal(jax.random.key(seed), (nodes, vectors)).at[:, 0].set(root)
    _, embedding = eigen.smallest(
        lambda x: diagonal * x - eigen.product(matrix, x), jnp.where(exists, start, 0),
        wanted=min(segments, nodes), bound=2.0, degree=40, rounds=12, tolerance=1e-3,
    )  # fmt: skip
    rows = spectral.unit_rows(embedding[:, :segments])
    # An empty node repeats an existing node, so that it forms no cluster.
    rows = rows[jnp.arange(nodes) % jnp.maximum(count, 1)]
    return spectral.cluster(rows, segments, assign, seed)


def _pieces(parts, touching):
    """The connected pieces of the parts: int32 [K] -> int32 [K]."""
    joined = touching & (parts[:, None] == parts)
    numbers = jnp.arange(parts.shape[0], dtype=jnp.int32)

    def body(carry):
        piece, _ = carry
        new = jnp.minimum(piece, jnp.min(jnp.where(joined, piece, numbers.size), axis=1))
        new = new[new]
        return new, jnp.any(new != piece)

    return jax.lax.while_loop(lambda carry: carry[1], body, (numbers, jnp.array(True)))[0]


def _gradient(planes):
    """Length of the gradient over all channels after a 5 x 5 blur: float32 [H, W]."""
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
    """plane[y + step] along an axis; the border is repeated."""
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
