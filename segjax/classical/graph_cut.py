"""Exact minimum cuts on the pixel grid, and segmentation from seeds by a minimum cut.

"Interactive Graph Cuts for Optimal Boundary & Region Segmentation of Objects in N-D Images"
(Boykov, Jolly, 2001): each pixel has a cost for its label, each edge a cost if its two pixels have
different labels, and the labelling of least total cost is a minimum s-t cut.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from segjax import arrays, contracts
from segjax.classical import augmenting, batches, gmm, pushing
from segjax.errors import InputError

UNKNOWN, BACKGROUND, FOREGROUND = 0, 1, 2
_BITS = 27  # of the sum of the capacities around a pixel
_LIMIT = 2**29  # of that sum, in integers
_HUGE = 2.0**64


class Cut(NamedTuple):
    """A labelling int32 [H, W] of 0 and 1, its energy float32 [] and its certificate bool [].

    `optimal` is true if no open edge leads from the source's side to the sink's, no pixel of the
    sink's side has supply left and no pixel of the source's side has demand left, so that the flow
    equals the cut of the costs as `min_cut` rounds them. It is false only if the effort was
    exhausted or, in a program, where values are not known before, if integers are too large.
    """

    labels: jax.Array
    energy: jax.Array
    optimal: jax.Array


def min_cut(unary: jax.Array, pairwise: jax.Array, *, effort: int = 64) -> Cut:
    """The labelling of least energy: sum of unary costs + sum of pairwise costs of the cut edges.

    Among several best labellings it is the one with the fewest pixels of label 1. The CPU runs
    `augmenting.solve`, one image of a batch after another; other platforms run `pushing.solve`.

    Args:
        unary: [H, W, 2], cost of label 0 and of label 1; infinite for a forbidden label. Floats are
            rounded to 27 bits relative to the largest sum of capacities around a pixel. If both
            arrays are integers, of any types, they are used unchanged: each is one of int32 or
            uint32, and the sum of the capacities around a pixel is below 2^29.
        pairwise: [2 or 4, H, W], capacities >= 0 of the edges from each pixel to the right and
            down and, for 8 neighbours, down-right and down-left; edges out of the image are
            ignored. Negative ones count as 0 where they are not known.
        effort: the search gives up after effort * H * W walks of excess or effort * (H + W) sweeps.

    Raises:
        InputError: if an array is of another type or shape, or holds other values.
    """
    if effort < 1:
        raise InputError(f"effort: got {effort}; allowed: 1 or more.")
    costs, capacities = _checked(unary, pairwise)
    return _cut(costs, _differences(costs), capacities, effort)


@functools.partial(jax.jit, static_argnums=3)
def _cut(unary: jax.Array, supply: jax.Array, pairwise: jax.Array, effort: int) -> Cut:
    """`min_cut` of arrays that have been checked, and the differences of the unary costs."""
    whole = all(jnp.issubdtype(x.dtype, jnp.integer) for x in (unary, pairwise))
    pairwise = jnp.maximum(_within(pairwise), 0)
    small = jnp.bool(True)
    if whole:
        capacity = contracts.as_int32(pairwise)
        small = _small(capacity)
    else:
        supply, capacity = _quantised(supply.astype(jnp.float32), pairwise.astype(jnp.float32))
    caps = both_ways(capacity)
    excess, caps, sink = flow(clamped(supply, caps), caps, effort=effort)
    chosen = jnp.where(sink, unary[..., 1], unary[..., 0])
    cut = [sink != pushing.neighbor(sink, 2 * k, False) for k in range(len(pairwise))]
    energy = jnp.sum(chosen.astype(jnp.float32))
    energy += jnp.sum(jnp.where(jnp.stack(cut), pairwise, 0).astype(jnp.float32))
    return Cut(sink.astype(jnp.int32), energy, proved(excess, caps, sink) & small)


def graph_cut(
    image: jax.Array,
    seeds: jax.Array,
    *,
    smoothness: float = 50.0,
    sigma: float | None = None,
    connectivity: int = 8,
    components: int = 5,
) -> jax.Array:
    """Segmentation from seeds: image [H, W, 3], int [H, W] -> int32 [H, W], 1 for foreground.

    The cost of a label is the negative log density of the colour under a Gaussian mixture fitted to
    the label's seeds; `contrast` gives the cost of an edge.

    Args:
        image: see `contracts.image`.
        seeds: 0 unknown, 1 background, 2 foreground; seeds keep their label. The colours of a label
            without seeds are assumed to be uniform.
        smoothness, sigma, connectivity: see `contrast`.
        components: Gaussians per mixture.

    Raises:
        InputError: if an option is out of its range or an array is not of its kind.
    """
    gmm.check_components(components)
    image = contracts.image(image)
    seeds = checked_seeds(seeds, image)
    edges = functools.partial(
        contrast, smoothness=smoothness, sigma=sigma, connectivity=connectivity
    )

    def segment(image, seeds):
        colors = gmm.planes(image)
        groups = jnp.where(seeds > 0, seeds - 1, 2)
        owners = gmm.split(colors, groups, components=components)
        density, _ = gmm.score(gmm.learn(colors, groups, owners, components=components), colors)
        wrong = jnp.stack([seeds == FOREGROUND, seeds == BACKGROUND])
        cost = jnp.where(wrong, jnp.inf, -density)
        return min_cut(jnp.moveaxis(cost, 0, -1), edges(image)).labels

    return batches.one_by_one(segment, image, seeds)


def checked_seeds(seeds: jax.Array, image: jax.Array) -> jax.Array:
    """Seeds as int32: UNKNOWN, BACKGROUND or FOREGROUND for each pixel of the image.

    Raises:
        InputError: if they are something else.
    """
    form = f"[{image.shape[0]}, {image.shape[1]}]"
    return contracts.integers(seeds, "seeds", form, least=UNKNOWN, most=FOREGROUND)


def contrast(
    image: jax.Array, *, smoothness: float, sigma: float | None, connectivity: int
) -> jax.Array:
    """Capacities of the edges: image [H, W, 3] -> float32 [connectivity / 2, H, W].

    smoothness * exp(-|dI|^2 / (2 sigma^2)) / distance, where dI is the difference of two
    neighbours' colours. By default sigma^2 is the mean of |dI|^2 over the image (Rother et al.
    2004, section 2.1).

    Raises:
        InputError: if smoothness is negative, sigma is not above 0, connectivity is not 4 or 8 or
            the array is no image.
    """
    image = contracts.image(image)
    if connectivity not in (4, 8):
        raise InputError(f"connectivity: got {connectivity}; allowed: 4, 8.")
    if not smoothness >= 0 or math.isinf(smoothness):
        raise InputError(f"smoothness: got {smoothness}; allowed: numbers >= 0.")
    if sigma is not None and not sigma > 0:
        raise InputError(f"sigma: got {sigma}; allowed: numbers > 0, or None.")
    exact = jnp.int32 if image.dtype == jnp.uint8 else jnp.float32
    planes = jnp.moveaxis(image.astype(exact), -1, 0)
    steps = augmenting.STEPS[: connectivity // 2]
    distances = []
    for k in range(len(steps)):
        differences = [plane - pushing.neighbor(plane, 2 * k, 0) for plane in planes]
        distances.append(arrays.total(difference**2 for difference in differences))
    squares = jnp.stack(distances).astype(jnp.float32)
    inside = _within(jnp.ones_like(squares))
    variance = sigma**2 if sigma is not None else jnp.sum(squares * inside) / jnp.sum(inside)
    weights = jnp.array([smoothness / math.hypot(*step) for step in steps], jnp.float32)
    return weights[:, None, None] * jnp.exp(squares * (-0.5 / jnp.maximum(variance, 1e-6))) * inside


def flow(
    excess: jax.Array, caps: jax.Array, *, effort: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Maximum flow by the solver that suits the platform; see `augmenting.solve`."""
    height, width = excess.shape
    walks = min(effort * height * width, 2**31 - 1)
    sweeps = min(effort * (height + width), 2**30)
    search = jax.custom_batching.sequential_vmap(functools.partial(augmenting.solve, limit=walks))
    push = functools.partial(pushing.solve, limit=sweeps)
    return lax.platform_dependent(excess, caps, cpu=search, default=push)


def both_ways(capacity: jax.Array) -> jax.Array:
    """Residual capacities by direction from edge capacities: int32 [D / 2, H, W] -> [D, H, W]."""
    pairs = [(x, pushing.neighbor(x, 2 * k + 1, 0)) for k, x in enumerate(capacity)]
    return jnp.stack([x for pair in pairs for x in pair])


def clamped(supply: jax.Array, caps: jax.Array) -> jax.Array:
    """Supply clamped to just above the total capacity of the edges around a pixel.

    A clamped pixel has the same label in every minimum cut, and no sum can overflow.
    """
    most = jnp.sum(caps, 0) + 1
    return jnp.clip(supply, -most, most).astype(jnp.int32)


def proved(excess: jax.Array, caps: jax.Array, sink: jax.Array) -> jax.Array:
    """Whether the flow equals the cut, bool []; see `Cut`."""
    across = [~sink & pushing.neighbor(sink, d, False) & (cap > 0) for d, cap in enumerate(caps)]
    stuck = jnp.where(sink, excess > 0, excess < 0)
    return ~jnp.any(functools.reduce(jnp.logical_or, across, stuck))


def _quantised(supply: jax.Array, capacity: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32 -> int32 by a power of two, so that every program rounds the same way."""
    supply = jnp.where(jnp.isnan(supply), 0, supply)  # both labels forbidden
    capacity = _limited(supply, capacity)
    # Sums of the largest floats would overflow.
    down = jnp.where(jnp.max(capacity) > _HUGE, 1 / _HUGE, 1)
    around = functools.reduce(jnp.add, both_ways(capacity * down))
    top = jnp.max(around)
    _, exponent = jnp.frexp(jnp.where(top > 0, top, 1))
    # In two steps: the factor for the smallest floats would overflow.
    half = (_BITS - exponent) // 2
    steps = [jnp.ldexp(jnp.float32(1), part) for part in (half, _BITS - exponent - half)]

    def scaled(x: jax.Array) -> jax.Array:
        return x * down * steps[0] * steps[1]

    capacity = jnp.round(scaled(capacity)).astype(jnp.int32)
    most = jnp.float32(2**28)
    rounded = jnp.round(jnp.clip(scaled(supply), -most, most)).astype(jnp.int32)
    # A pixel without edges takes its cheaper label however small the difference.
    return jnp.where(around > 0, rounded, jnp.sign(supply).astype(jnp.int32)), capacity


def _limited(supply: jax.Array, capacity: jax.Array) -> jax.Array:
    """Capacities that no flow exceeds: a huge one must not round the others to 0."""
    most = jnp.max(jnp.abs(supply)) * supply.size  # infinite if a label is forbidden
    finite = jnp.isfinite(capacity)
    costs = jnp.where(jnp.isfinite(supply), jnp.abs(supply), 0)
    # An infinite edge costs more than all that is finite.
    everything = jnp.sum(costs) + jnp.sum(jnp.where(finite, capacity, 0))
    return jnp.where(finite | jnp.isfinite(most), jnp.minimum(capacity, most), everything)


def _within(pairwise: contracts.Known) -> jax.Array:
    """The capacities without the edges that leave the image."""
    height, width = pairwise.shape[1:]
    inside = jnp.ones((height, width), bool)
    kept = [pushing.neighbor(inside, 2 * k, False) for k in range(len(pairwise))]
    return jnp.where(jnp.stack(kept), pairwise, 0)


def _checked(unary: jax.Array, pairwise: jax.Array) -> tuple[contracts.Known, contracts.Known]:
    """The arrays of a cut; integers as int32 or uint32, floats of 16 bits as float32."""
    costs = _exact(contracts.real(unary, "unary", "[H, W, 2]"), "unary")
    size = f"{costs.shape[0]}, {costs.shape[1]}"
    capacities = contracts.real(pairwise, "pairwise", f"[2, {size}] or [4, {size}]")
    capacities = _exact(capacities, "pairwise")
    values = contracts.known(costs)
    if values is not None and np.isnan(values).any():
        contracts.refuse("unary", "nan", "numbers, infinite for a forbidden label")
    values = contracts.known(capacities)
    if values is None:
        return costs, capacities
    values = np.asarray(_within(jnp.asarray(values)))
    if np.isnan(values).any() or values.min() < 0:
        contracts.refuse("pairwise", f"{values.min()}", "numbers of 0 and more")
    both_whole = all(jnp.issubdtype(x.dtype, jnp.integer) for x in (costs, capacities))
    if both_whole and not _small(contracts.as_int32(values)):
        allowed = "below 2^29 in integers; floats may be larger"
        contracts.refuse("pairwise", "a larger sum of capacities around a pixel", allowed)
    return costs, capacities


def _exact(x: contracts.Known, name: str) -> contracts.Known:
    """Integers in 32 bits, and floats in 32 or more: no arithmetic in narrower types."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if x.dtype.itemsize < 4:
        return x.astype(np.int32)
    if isinstance(x, np.ndarray) and x.dtype.itemsize > 4:
        least, most = int(x.min()), int(x.max())
        kind = np.dtype(np.uint32 if most >= 2**31 else np.int32)
        if not np.iinfo(kind).min <= least <= most <= np.iinfo(kind).max:
            contracts.refuse(name, f"values of {least} to {most}", "those of int32, or of uint32")
        return x.astype(kind)
    return x


def _differences(unary: contracts.Known) -> contracts.Known:
    """The cost of label 1 less that of label 0; integers as int32, cut off at its ends."""
    zero, one = unary[..., 0], unary[..., 1]
    if jnp.issubdtype(unary.dtype, jnp.floating):
        with np.errstate(invalid="ignore", over="ignore"):  # both labels forbidden
            return one - zero
    # Unsigned arithmetic is exact for every difference of the larger and the smaller one.
    unsigned = np.dtype(f"uint{8 * unary.dtype.itemsize}")
    more = one > zero
    high, low = (jnp.where(more, *pair).astype(unsigned) for pair in ((one, zero), (zero, one)))
    size = jnp.minimum(high - low, 2**31 - 1).astype(jnp.int32)
    return jnp.where(more, size, -size)


def _small(capacity: jax.Array) -> jax.Array:
    """Whether all sums of int32 capacities around a pixel are small enough for int32: bool []."""
    # In eighths, of which eight cannot overflow.
    eighths = functools.reduce(jnp.add, both_ways(capacity >> 3))
    return jnp.max(eighths) < _LIMIT >> 3
