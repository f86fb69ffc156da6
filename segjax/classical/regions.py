"""Tools for label maps: components, numbering, boundaries, means, adjacency, merging and votes.

A label map is [H, W] of any integers. Functions of regions 0 .. K-1 take `regions`, a static
capacity of K or more; result rows beyond K are empty. Another label is refused where it is known
(`contracts`), and in a program its pixels belong to no region.
"""

import functools

import jax
import jax.numpy as jnp

from segjax import arrays, contracts
from segjax.errors import InputError

_HALF = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}
"""(down, right) steps to half of the neighbours; the others are the opposite steps."""


def components(labels: jax.Array, *, connectivity: int = 4) -> jax.Array:
    """The connected pieces of equal labels: int [H, W] -> int32 [H, W].

    Minima travel along the links and pointers are doubled after every round, so that the number of
    rounds grows with the logarithm of a piece's length (Shiloach, Vishkin 1982).

    Args:
        labels: any integers.
        connectivity: 4 or 8.

    Returns:
        Pieces 0, 1, ... in the raster order of their first pixels.

    Raises:
        InputError: for another connectivity, or labels that are no integers.
    """
    labels = contracts.names(labels, "labels", "[H, W]")
    links = [(step, _same(labels, step)) for step in _half(connectivity)]
    shape = labels.shape
    places = jnp.arange(labels.size, dtype=jnp.int32).reshape(shape)

    def hook(parent: jax.Array) -> jax.Array:
        """Points every root to the smallest root that a link of its piece reaches."""
        lowest = parent
        for step, linked in links:
            far = _neighbor(parent, step, labels.size)
            lowest = jnp.minimum(lowest, jnp.where(linked, far, labels.size))
            back = jnp.where(linked, jnp.minimum(parent, far), labels.size)
            lowest = jnp.minimum(lowest, _neighbor(back, (-step[0], -step[1]), labels.size))
        return parent.ravel().at[parent.ravel()].min(lowest.ravel())

    def shorten(parent: jax.Array) -> jax.Array:
        def again(pair):
            return jnp.any(pair[0] != pair[1])

        def jump(pair):
            _, new = pair
            return new, new[new]

        return jax.lax.while_loop(again, jump, (parent, parent[parent]))[1]

    def body(carry):
        parent, _ = carry
        new = shorten(hook(parent)).reshape(shape)
        return new, jnp.any(new != parent)

    parent, _ = jax.lax.while_loop(lambda carry: carry[1], body, (places, jnp.array(True)))
    return _rank(parent, parent == places)


def relabel(labels: jax.Array, *, regions: int | None = None) -> jax.Array:
    """The map with regions numbered 0, 1, ... in the raster order of their first pixels.

    Args:
        labels: int [*space], 0 to regions - 1; other values are clipped to this range.
        regions: capacity, by default the number of pixels; a smaller one is faster.

    Raises:
        InputError: if the labels are no integers.
    """
    labels = contracts.as_int32(contracts.whole(labels, "labels", "[..., N]"))
    regions = labels.size if regions is None else regions
    place = jnp.arange(labels.size, dtype=jnp.int32)
    flat = jnp.clip(labels, 0, regions - 1).ravel()
    first = jnp.full(regions, labels.size, jnp.int32).at[flat].min(place)
    if regions < labels.size // 16:  # sorting first pixels is cheaper than a sum over all
        number = jnp.argsort(jnp.argsort(first)).astype(jnp.int32)
        return number[flat].reshape(labels.shape)
    root = first[flat].reshape(labels.shape)
    return _rank(root, root == place.reshape(labels.shape))


def _rank(root: jax.Array, is_root: jax.Array) -> jax.Array:
    """The rank of roots, given as places of pixels, in raster order."""
    rank = jnp.cumsum(is_root.ravel().astype(jnp.int32)) - 1
    return rank[root.ravel()].reshape(root.shape)


def boundaries(labels: jax.Array, *, thin: bool = False) -> jax.Array:
    """Region boundary pixels, with a 4-neighbour of another label: [..., H, W] -> bool [..., H, W].

    Args:
        labels: any integers.
        thin: only pixels whose right or lower neighbour differs, so that a boundary is one pixel
            wide.

    Raises:
        InputError: if the labels are no integers.
    """
    labels = contracts.names(labels, "labels", "[..., H, W]")
    down = labels[..., :-1, :] != labels[..., 1:, :]
    right = labels[..., :-1] != labels[..., 1:]
    edge = _pad_last(down, -2, after=True) | _pad_last(right, -1, after=True)
    if thin:
        return edge
    return edge | _pad_last(down, -2, after=False) | _pad_last(right, -1, after=False)


def sizes(labels: jax.Array, *, regions: int) -> jax.Array:
    """Number of pixels in each region, labels int [*space]: int32 [regions].

    Raises:
        InputError: if a label is no integer of 0 to regions - 1.
    """
    labels = _indices(labels, "[..., N]", regions)
    return jnp.zeros(regions, jnp.int32).at[labels.ravel()].add(1, mode="drop")


def means(values: jax.Array, labels: jax.Array, *, regions: int) -> jax.Array:
    """The mean value of each region, such as its mean colour; 0 for an empty region.

    Args:
        values: finite numbers [H, W, C].
        labels: int [H, W], 0 to regions - 1.
        regions: capacity.

    Returns:
        float32 [regions, C].

    Raises:
        InputError: if an array is not of its kind.
    """
    values = contracts.numbers(values, "values", "[H, W, C]")
    labels = _indices(labels, _of_size(values), regions)
    flat = values.reshape(-1, values.shape[-1]).astype(jnp.float32)
    sums = _sums(flat, labels.ravel(), regions)
    return sums / jnp.maximum(sizes(labels, regions=regions), 1)[:, None]


_BLOCK = 2**16  # 8-bit numbers of so many pixels have exact sums


def _sums(values: jax.Array, labels: jax.Array, regions: int) -> jax.Array:
    """Sums of each region: float32 [N, C], int32 [N] -> [regions, C].

    Blocks of pixels are added up with what rounding has cut off ("TwoSum", Knuth, The Art of
    Computer Programming 2, 4.2.2): a sum that grows pixel by pixel stays where it is once a value
    is less than half of its last digit, which 8-bit colours are after some 17 million pixels.
    """
    count, channels = values.shape
    block = min(_BLOCK, max(count, 1))
    filling = arrays.round_up(count, block) - count
    values = jnp.pad(values, ((0, filling), (0, 0)))
    labels = jnp.pad(labels, (0, filling), constant_values=regions)  # of no region
    empty = jnp.zeros((regions, channels))

    def add(carry: tuple, part: tuple) -> tuple:
        total, rest = carry
        values, labels = part
        more = empty.at[labels].add(values, mode="drop")
        grown = total + more
        kept = grown - total
        rest = rest + ((total - (grown - kept)) + (more - kept))
        return (grown, rest), None

    blocks = (values.reshape(-1, block, channels), labels.reshape(-1, block))
    (total, rest), _ = jax.lax.scan(add, (empty, empty), blocks)
    return total + rest


def mean_image(image: jax.Array, labels: jax.Array, *, regions: int) -> jax.Array:
    """The regions in their mean colours: uint8 or floats of 0 to 255, int -> uint8.

    Args:
        image: [H, W, C], or grey, [H, W].
        labels: [H, W], 0 to regions - 1.
        regions: capacity.

    Returns:
        As large as the image.

    Raises:
        InputError: if an array is not of its kind.
    """
    image = contracts.image(image, form="[H, W, C] or [H, W]")
    labels = _indices(labels, _of_size(image), regions)
    if image.ndim == 2:
        return mean_image(image[..., None], labels, regions=regions)[..., 0]
    colors = jnp.round(means(image, labels, regions=regions)).astype(jnp.uint8)
    return colors.at[labels].get(mode="fill", fill_value=0)


def adjacency(
    labels: jax.Array,
    values: jax.Array | None = None,
    *,
    regions: int,
    connectivity: int = 4,
) -> tuple[jax.Array, jax.Array]:
    """The region adjacency graph as dense matrices.

    Args:
        labels: int [H, W], 0 to regions - 1.
        values: finite numbers [H, W], such as a gradient's magnitude; ones by default.
        regions: capacity K.
        connectivity: 4 or 8.

    Returns:
        counts: int32 [K, K], symmetric, number of neighbouring pixel pairs between two regions; 0
            on the diagonal and for regions that do not touch.
        sums: float32 [K, K], sum of the pairs' mean values.

    Raises:
        InputError: for another connectivity, or if an array is not of its kind.
    """
    labels = _indices(labels, "[H, W]", regions)
    if values is not None:
        values = contracts.numbers(values, "values", _of_size(labels))
    counts = jnp.zeros((regions * regions,), jnp.int32)
    sums = jnp.zeros((regions * regions,), jnp.float32)
    for down, right in _half(connectivity):
        near, far = _pairs(labels, (down, right))
        outside = regions * regions  # dropped
        apart = (near != far) & (near < regions) & (far < regions)
        index = jnp.minimum(near, far) * regions + jnp.maximum(near, far)
        index = jnp.where(apart, index, outside).ravel()
        counts = counts.at[index].add(1, mode="drop")
        if values is not None:
            first, second = _pairs(values, (down, right))
            sums = sums.at[index].add(0.5 * (first + second).ravel(), mode="drop")
    counts, sums = (array.reshape(regions, regions) for array in (counts, sums))
    sums = counts.astype(jnp.float32) if values is None else sums
    return counts + counts.T, sums + sums.T


def merge(features: jax.Array, labels: jax.Array, *, regions: int, keep: int) -> jax.Array:
    """Merges touching regions until `keep` are left, always the pair with the smallest loss.

    The loss of a merge is the growth of the squared error around the regions' means,
    n m / (n + m) |a - b|^2 (Ward 1963), so that every step lowers explained variation as little as
    possible.

    Args:
        features: finite numbers [H, W, C], such as CIELAB.
        labels: int [H, W], 0 to regions - 1.
        regions: capacity; time and memory grow with its square.
        keep: number of regions to leave; a map with no more regions is only renumbered.

    Returns:
        int32 [H, W], 0 to K - 1 in raster order of the first pixels.

    Raises:
        InputError: if keep is not at least 1 or an array is not of its kind.
    """
    if keep < 1:
        raise InputError(f"keep is {keep}; at least 1 is allowed.")
    features = contracts.numbers(features, "features", "[H, W, C]")
    labels = _indices(labels, _of_size(features), regions)
    return _merged(features, labels, regions=regions, keep=keep)


@functools.partial(jax.jit, static_argnames=("regions", "keep"))
def _merged(features: jax.Array, labels: jax.Array, *, regions: int, keep: int) -> jax.Array:
    """`merge` of arrays that have been checked."""
    numbers = jnp.arange(regions, dtype=jnp.int32)
    count = sizes(labels, regions=regions).astype(jnp.float32)
    touching = adjacency(labels, regions=regions)[0] > 0
    mean = means(features, labels, regions=regions)
    left = jnp.sum(count > 0)

    def losses(index, mean, count, touching):
        """Losses of merging region `index` with each region: float32 [regions]."""
        weight = count[index] * count / jnp.maximum(count[index] + count, 1)
        square = jnp.sum((mean - mean[index]) ** 2, axis=-1)
        return jnp.where(touching[index], weight * square, jnp.inf)

    table = jax.vmap(losses, (0, None, None, None))(numbers, mean, count, touching)

    def body(carry):
        left, into, mean, count, touching, table = carry
        keeper, gone = jnp.divmod(jnp.argmin(table).astype(jnp.int32), regions)
        total = count[keeper] + count[gone]
        middle = (count[keeper] * mean[keeper] + count[gone] * mean[gone]) / total
        mean = mean.at[keeper].set(middle)
        count = count.at[keeper].set(total).at[gone].set(0)
        row = (touching[keeper] | touching[gone]) & (numbers != keeper) & (numbers != gone)
        touching = touching.at[gone].set(False).at[:, gone].set(False)
        touching = touching.at[keeper].set(row).at[:, keeper].set(row)
        line = losses(keeper, mean, count, touching)
        table = table.at[gone].set(jnp.inf).at[:, gone].set(jnp.inf)
        table = table.at[keeper].set(line).at[:, keeper].set(line)
        into = jnp.where(into == gone, keeper, into)
        return left - 1, into, mean, count, touching, table

    def more(carry):
        left, table = carry[0], carry[-1]
        return (left > keep) & jnp.any(jnp.isfinite(table))

    carry = (left, numbers, mean, count, touching, table)
    into = jax.lax.while_loop(more, body, carry)[1]
    return relabel(into[labels])


def vote(labels: jax.Array, values: jax.Array, *, regions: int, classes: int) -> jax.Array:
    """The most frequent class of each region, at its pixels; the lowest of equally frequent ones.

    Args:
        labels: int [H, W], 0 to regions - 1.
        values: int [H, W], classes; pixels outside 0 to classes - 1, such as VOID, do not vote.
        regions, classes: capacities.

    Returns:
        int32 [H, W], classes; `classes` in regions without a vote.

    Raises:
        InputError: if an array is not of its kind.
    """
    labels = _indices(labels, "[H, W]", regions)
    values = contracts.as_int32(contracts.whole(values, "values", _of_size(labels)))
    valid = (values >= 0) & (values < classes) & (labels < regions)
    index = jnp.where(valid, labels * classes + values, regions * classes)
    counts = jnp.zeros(regions * classes, jnp.int32).at[index.ravel()].add(1, mode="drop")
    counts = counts.reshape(regions, classes)
    winner = jnp.where(counts.max(axis=1) > 0, jnp.argmax(counts, axis=1), classes)
    return winner.astype(jnp.int32).at[labels].get(mode="fill", fill_value=classes)


def _indices(labels: jax.Array, form: str, regions: int) -> jax.Array:
    """Labels as int32 of 0 to `regions`; the last, for any other label, is beyond all regions."""
    labels = contracts.integers(labels, "labels", form, least=0, most=regions - 1)
    # A negative index would count from the end.
    return jnp.where((labels < 0) | (labels >= regions), regions, labels)


def _of_size(x: jax.Array) -> str:
    """The form of a label map of an image or map."""
    return f"[{x.shape[0]}, {x.shape[1]}]"


def _half(connectivity: int) -> tuple[tuple[int, int], ...]:
    if connectivity not in _HALF:
        raise InputError(f"connectivity is {connectivity}; 4 and 8 are allowed.")
    return _HALF[connectivity]


def _pairs(values: jax.Array, step: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """The pixels that have a neighbour at `step`, and these neighbours: two cropped maps."""
    height, width = values.shape
    down, right = step
    near = values[: height - down, max(0, -right) : width - max(0, right)]
    far = values[down:, max(0, right) : width + min(0, right)]
    return near, far


def _neighbor(values: jax.Array, step: tuple[int, int], fill: int) -> jax.Array:
    """values[y + down, x + right], or `fill` outside: int32 [H, W] -> int32 [H, W]."""
    down, right = step
    # A negative amount crops.
    config = ((-down, down, 0), (-right, right, 0))
    return jax.lax.pad(values, jnp.array(fill, values.dtype), config)


def _same(labels: jax.Array, step: tuple[int, int]) -> jax.Array:
    """Whether the neighbour at `step` is inside and has the same label: bool [H, W]."""
    inside = _neighbor(jnp.ones(labels.shape, jnp.int32), step, 0) > 0
    return inside & (_neighbor(labels, step, 0) == labels)


def _pad_last(mask: jax.Array, axis: int, *, after: bool) -> jax.Array:
    width = [(0, 0)] * mask.ndim
    width[axis] = (0, 1) if after else (1, 0)
    return jnp.pad(mask, width)
