"""Graph-based segmentation (Felzenszwalb, Huttenlocher: Efficient Graph-Based Image Segmentation,
IJCV 2004).

Edges between neighbouring pixels are visited in order of weight. An edge joins two components if
its weight is below the threshold of both: the largest weight within the component's minimum
spanning tree plus scale / size. Afterwards, components that are too small join others along their
lightest edges.

There are two forms. "exact" visits one edge after another, which suits a CPU. "parallel" splits the
sorted edges into levels and visits all edges of a level at once, in rounds, which suits an
accelerator; its result approaches the exact one with more levels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from segjax import contracts
from segjax.classical import regions, spanning
from segjax.classical.spanning import get, put
from segjax.errors import InputError

FORMS = ("auto", "exact", "parallel")
_TRUNCATE = 4.0  # extent of the Gaussian in standard deviations


def felzenszwalb(
    image: jax.Array,
    *,
    scale: float,
    sigma: float = 0.8,
    min_size: int,
    form: str = "auto",
    levels: int = 256,
) -> jax.Array:
    """Graph-based segmentation: image [H, W, 3] -> int32 [H, W], K regions that are 8-connected.

    Args:
        image: see `contracts.image`.
        scale: the paper's k, colour (0 to 255) times pixels; larger values give fewer regions.
        sigma: standard deviation in pixels of the Gaussian that smooths the image; 0 for none.
        min_size: smallest size of a region in pixels, unless the image is smaller.
        form: "exact", "parallel", or "auto": exact on a CPU and parallel elsewhere.
        levels: number of levels of the parallel form; they have about equally many edges.

    Returns:
        Regions 0 to K - 1 in the raster order of their first pixels.

    Raises:
        InputError: for an option out of its range, or an array that is no image.
    """
    image = contracts.image(image)
    if form not in FORMS:
        raise InputError(f"form is {form!r}; {', '.join(FORMS)} are allowed.")
    for name, value, least in (("min_size", min_size, 0), ("levels", levels, 1)):
        if value < least:
            raise InputError(f"{name} is {value}; at least {least} is allowed.")
    if not scale > 0:
        raise InputError(f"scale is {scale}; numbers above 0 are allowed.")
    if not 0 <= sigma < np.inf:
        raise InputError(f"sigma is {sigma}; finite numbers of at least 0 are allowed.")
    height, width = image.shape[:2]
    if height * width == 1:
        return jnp.zeros((1, 1), jnp.int32)
    planes = jnp.moveaxis(image, -1, 0).astype(jnp.float32)
    edges = spanning.grid_edges(*_differences(planes, sigma))

    @jax.custom_batching.sequential_vmap
    def exact(edges):  # sequential, because a batched loop would copy whole arrays every trip
        return _exact(edges, height * width, scale, min_size)

    def parallel(edges):
        root = _grow(edges, height * width, scale, levels)
        return spanning.absorb(root, edges, min_size)

    if form == "auto":
        root = jax.lax.platform_dependent(edges, cpu=exact, default=parallel)
    else:
        root = {"exact": exact, "parallel": parallel}[form](edges)
    return regions.relabel(root.reshape(height, width))


def _differences(planes: jax.Array, sigma: float) -> tuple[jax.Array, jax.Array]:
    """The arguments of `spanning.grid_edges` for an image smoothed by a Gaussian, mirrored outside.

    The differences of integers are smoothed. Differences of smoothed values, rounded to float32,
    would lose the order of the edges, and sometimes a region, where an image is nearly flat.
    """
    radius = int(_TRUNCATE * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (sigma or 1)) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    wide = jnp.pad(planes, ((0, 0), (radius, radius), (radius, radius)), mode="symmetric")

    def along(axis):
        def smooth(plane):
            size = plane.shape[axis] - 2 * radius
            parts = [jax.lax.slice_in_dim(plane, k, k + size, axis=axis) for k in range(len(taps))]
            # From the outside in, so that small numbers are added first.
            pairs = [taps[k] * (parts[k] + parts[-1 - k]) for k in range(radius)]
            return sum(pairs) + taps[radius] * parts[radius]

        return smooth

    # A loop over the planes ends a fusion; else each tap of a pass would recompute the pass before.
    return tuple(
        jax.lax.map(along(1), jax.lax.map(along(0), jnp.diff(wide, axis=axis))) for axis in (2, 1)
    )


def _exact(edges: spanning.Edges, pixels: int, scale: float, min_size: int) -> jax.Array:
    """The exact form, edge after edge: M sorted edges -> int32 [N], a root for each pixel."""
    count = edges.weight.size
    nowhere = jnp.int32(pixels)
    zero = jnp.int32(0)

    def similar(extra, edge, apart, root, below, sizes):
        threshold, refused, number, (at, value, place, last) = extra
        threshold, refused = put(threshold, at, value), put(refused, place, last)
        weight = get(edges.weight, edge)
        joins = apart & (weight < jnp.minimum(get(threshold, root), get(threshold, below)))
        refuses = apart & ~joins
        at, value = jnp.where(joins, root, nowhere), weight + scale / (sizes[0] + sizes[1])
        late = at, value, jnp.where(refuses, number, count), edge
        return joins, (threshold, refused, number + refuses, late)

    def small(extra, edge, apart, root, below, sizes):
        return apart & (sizes[1] < min_size), extra

    link = jnp.full(pixels + 1, -1, jnp.int32)
    threshold = jnp.full(pixels + 1, scale, jnp.float32)
    late = nowhere, jnp.float32(0), jnp.int32(count), zero
    extra = threshold, jnp.zeros(count + 1, jnp.int32), zero, late

    def ends(edge):
        return get(edges.one, edge), get(edges.other, edge)

    link, (_, refused, number, late) = _kruskal(ends, jnp.int32(count), link, similar, extra)
    # Now only the refused edges lie between two components.
    refused = put(refused, *late[2:])
    link, _ = _kruskal(lambda k: ends(get(refused, k)), number, link, small, ())
    link = link[:-1]
    return spanning.roots(jnp.where(link < 0, jnp.arange(pixels, dtype=jnp.int32), link))


def _kruskal(ends: Callable, count: jax.Array, link: jax.Array, decide: Callable, extra):
    """Joins components edge after edge.

    A trip of the loop climbs two steps from both pixels of an edge; once both have reached their
    roots, it decides on the edge and begins the next one. A trip stores the results of the trip
    before, because an array that a fusion both reads and writes would be copied every time.

    Args:
        ends: maps an edge's number to its two pixels.
        count: int32 [], number of edges.
        link: int32 [N + 1], the parent of a pixel, or minus the size of a root's component. The
            last entry receives void stores.
        decide: maps (extra, edge, apart, root, below, sizes) to (joins, extra). `apart` says
            whether the edge lies between two components, `joins` whether it joins them. `root` is
            the root of the larger component, `below` that of the other.
        extra: state of `decide`.

    Returns:
        `link` and `extra`.
    """
    nowhere = jnp.int32(link.size - 1)

    def climb(link, node):
        up = get(link, node)
        node = jnp.where(up < 0, node, up)
        return node, get(link, node)

    def body(carry):
        edge, (a, b), link, (root, size, below, parent), extra = carry
        link = put(put(link, root, size), below, parent)
        (a, up_a), (b, up_b) = climb(link, a), climb(link, b)
        arrived = (up_a < 0) & (up_b < 0)
        first = up_a <= up_b
        root, below = jnp.where(first, a, b), jnp.where(first, b, a)
        sizes = -jnp.minimum(up_a, up_b), -jnp.maximum(up_a, up_b)
        joins, extra = decide(extra, edge, arrived & (a != b), root, below, sizes)
        # Without a join, a pixel is linked to its root, which shortens the next climb.
        pixel = ends(edge)[0]
        shortens = arrived & ~joins & (pixel != a)
        below = jnp.where(joins, below, jnp.where(shortens, pixel, nowhere))
        late = jnp.where(joins, root, nowhere), up_a + up_b, below, jnp.where(joins, root, a)
        edge += arrived
        start, end = ends(jnp.minimum(edge, count - 1))
        a = jnp.where(arrived, start, jnp.where(up_a < 0, a, up_a))
        b = jnp.where(arrived, end, jnp.where(up_b < 0, b, up_b))
        return edge, (a, b), link, late, extra

    zero = jnp.int32(0)
    carry = zero, ends(zero), link, (nowhere, zero, nowhere, zero), extra
    carry = jax.lax.while_loop(lambda carry: carry[0] < count, body, carry)
    _, _, link, (root, size, below, parent), extra = carry
    return put(put(link, root, size), below, parent), extra


def _grow(edges: spanning.Edges, pixels: int, scale: float, levels: int) -> jax.Array:
    """The parallel form, level after level: M sorted edges -> int32 [N], a root for each pixel.

    In a round, each component takes its lightest edge in the level that both thresholds allow, and
    joins the component at the other end if that one is larger and joins no other in this round.
    This forbids chains, for whose members the old thresholds would not hold.
    """
    share = -(-edges.weight.size // levels)
    pad = -edges.weight.size % share
    weights = jnp.pad(edges.weight, (0, pad), constant_values=jnp.inf).reshape(-1, share)
    ends = [jnp.pad(end, (0, pad)).reshape(-1, share) for end in (edges.one, edges.other)]
    rank = jnp.arange(share, dtype=jnp.int32)

    def level(forest, chunk):
        weight, ends = chunk

        def allowed(roots, threshold):
            return (roots[0] != roots[1]) & (weight < threshold[roots].min(axis=0))

        def round_(carry):
            (parent, size, inner, threshold), roots, joins = carry
            lightest = jnp.full(pixels, share, jnp.int32)
            lightest = lightest.at[roots].min(jnp.where(joins, rank, share)[None])
            sizes = size[roots]
            first = (sizes[0] > sizes[1]) | ((sizes[0] == sizes[1]) & (roots[0] < roots[1]))
            root, below = jnp.where(first, roots[0], roots[1]), jnp.where(first, roots[1], roots[0])
            hooks = joins & (lightest[below] == rank)
            at = jnp.where(hooks, below, pixels)
            hooking = jnp.zeros(pixels, bool).at[at].set(True, mode="drop")
            hooks &= ~hooking[root]
            parent = parent.at[jnp.where(hooks, below, pixels)].set(root, mode="drop")
            at = jnp.where(hooks, root, pixels)
            size = size.at[at].add(jnp.where(first, sizes[1], sizes[0]), mode="drop")
            inner = inner.at[at].max(weight, mode="drop")
            threshold = threshold.at[at].set(inner[root] + scale / size[root], mode="drop")
            roots = parent[roots]
            return (parent, size, inner, threshold), roots, allowed(roots, threshold)

        roots = spanning.find(forest[0], ends)
        carry = forest, roots, allowed(roots, forest[-1])
        (parent, *rest), roots, _ = jax.lax.while_loop(lambda c: jnp.any(c[2]), round_, carry)
        return (parent.at[ends].set(roots), *rest), None

    nodes = jnp.arange(pixels, dtype=jnp.int32)
    threshold = jnp.full(pixels, scale, jnp.float32)
    forest = nodes, jnp.ones(pixels, jnp.int32), jnp.zeros(pixels), threshold
    (parent, *_), _ = jax.lax.scan(level, forest, (weights, jnp.stack(ends, axis=1)))
    return spanning.roots(parent)
