"""Superpixels by simple linear iterative clustering.

Achanta et al., "SLIC superpixels", EPFL report 149300, 2010, and "SLIC Superpixels Compared to
State-of-the-Art Superpixel Methods", PAMI 2012. K-means in CIELAB and position, each centre near
its place in a grid: a pixel is compared with the centres of its own and the adjoining cells only.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from segjax.classical import color as colors
from segjax.classical import connectivity
from segjax.classical import regions as tools
from segjax.errors import InputError

COLORS = ("lab", "none")

_CODE = 31  # low bits of a distance that hold the number of a candidate, 27 at most
_SKIP = 4  # rows, of which an iteration sees one
_FAR = 1e12  # squared distance of a centre that is not there


def slic(
    image: jax.Array,
    *,
    regions: int,
    compactness: float = 11.0,
    iterations: int = 6,
    adaptive: bool = False,
    color: str = "lab",
    smallest: float = 0.1,
) -> jax.Array:
    """Superpixels: [H, W, C] -> int32 [H, W], or of a volume [D, H, W, C] -> int32 [D, H, W].

    Args:
        image: uint8 RGB for "lab"; any number of channels of any type for "none".
        regions: superpixels asked for, K. The grid that fits best has about as many cells, never
            more; fewer come out where some are lost.
        compactness: m, how much nearness in the image counts against colour. In "lab" 1 to 40.
        iterations: of assigning pixels and moving centres; each sees a quarter of the rows, another
            quarter every time. At the end every pixel is assigned.
        adaptive: SLICO: every region is as compact as its own colours' spread allows; then
            `compactness` is where that spread starts.
        color: "lab", or "none" for values as they are.
        smallest: share of a cell's pixels below which a region is given to its neighbours.

    Returns:
        Regions 0 to K - 1, each one 4-connected piece (6-connected in a volume), numbered in raster
        order of their first pixels.

    Raises:
        InputError: on options out of range, such as more regions than pixels.
    """
    shape = image.shape[:-1]
    _check(shape, regions, compactness, iterations, color, smallest, image.shape[-1])
    cell = cell_shape(shape, regions)
    grid = tuple(-(-length // side) for length, side in zip(shape, cell, strict=True))
    values = _planes(_to_blocks(_smooth(image), cell, grid), color)
    inside = _to_blocks(jnp.ones((*shape, 1), bool), cell, grid)[..., 0]
    centers = _start(values, inside, cell)
    spread = jnp.full(grid, compactness**2, jnp.float32)
    for step in range(iterations):
        phase = slice(step % _SKIP, None, _SKIP) if cell[0] >= 3 * _SKIP else slice(None)
        part = [plane[phase] for plane in values]
        offsets = [offset[phase] for offset in _offsets(cell)]
        assigned = _assign(part, offsets, centers, spread, cell, compactness, adaptive)
        centers, spread = _update(
            part, offsets, inside[phase], assigned, centers, spread, cell, adaptive
        )
    labels, _ = _assign(values, _offsets(cell), centers, spread, cell, compactness, adaptive)
    labels = _from_blocks(labels, shape)
    least = max(1, round(smallest * math.prod(cell)))
    seeds = connectivity.seeds(labels, math.prod(grid), least=least)
    return tools.relabel(connectivity.connect(labels, seeds), regions=math.prod(grid))


def cell_shape(shape: Sequence[int], regions: int) -> tuple[int, ...]:
    """The cell, in whole pixels, of the grid of at most `regions` cells that fits best.

    Few cells lost, cells near to cubes, and none that lies mostly outside.
    """
    ideal = (math.prod(shape) / regions) ** (1 / len(shape))
    sides = []
    for length in shape:
        low, high = max(1, math.floor(0.7 * ideal)), math.ceil(1.5 * ideal) + 1
        sides.append(sorted({min(side, length) for side in range(low, high + 1)} | {length}))
    best, least = tuple(shape), math.inf
    for cell in itertools.product(*sides):
        grid = [math.ceil(length / side) for length, side in zip(shape, cell, strict=True)]
        if math.prod(grid) > regions:
            continue
        lost = math.log(regions / math.prod(grid))
        long = math.log(max(cell) / min(cell))
        outside = math.log(math.prod(grid) * math.prod(cell) / math.prod(shape))
        if lost + 0.5 * long + outside < least:
            best, least = cell, lost + 0.5 * long + outside
    return best


def _to_blocks(image: jax.Array, cell: Sequence[int], grid: Sequence[int]) -> jax.Array:
    """[*shape, C] -> [*cell, *grid, C]: cells side by side, zeros where they reach outside."""
    axes = len(cell)
    pads = [(0, c * g - n) for c, g, n in zip(cell, grid, image.shape, strict=False)]
    image = jnp.pad(image, [*pads, (0, 0)])
    split = [side for pair in zip(grid, cell, strict=True) for side in pair]
    image = image.reshape(*split, image.shape[-1])
    order = [*range(1, 2 * axes, 2), *range(0, 2 * axes, 2), 2 * axes]
    return image.transpose(order)


def _from_blocks(blocks: jax.Array, shape: Sequence[int]) -> jax.Array:
    """[*cell, *grid] -> [*shape]."""
    axes = len(shape)
    order = [axis for pair in zip(range(axes, 2 * axes), range(axes), strict=True) for axis in pair]
    sides = blocks.shape
    whole = blocks.transpose(order).reshape(
        [c * g for c, g in zip(sides[:axes], sides[axes:], strict=True)]
    )
    return whole[tuple(slice(length) for length in shape)]


def _smooth(image: jax.Array) -> jax.Array:
    """A blur of 1 2 1 along every axis of space, the border going on: [*space, C] -> the same.

    Without it noise tears regions into pieces, and what connects them again knows no colours.
    """
    wide = jnp.int32 if jnp.issubdtype(image.dtype, jnp.integer) else jnp.float32
    values = image.astype(wide)
    for axis in range(image.ndim - 1):
        length = image.shape[axis]
        first, last = (jax.lax.slice_in_dim(values, i, i + 1, axis=axis) for i in (0, length - 1))
        before = jnp.concatenate(
            [first, jax.lax.slice_in_dim(values, 0, length - 1, axis=axis)], axis
        )
        after = jnp.concatenate([jax.lax.slice_in_dim(values, 1, length, axis=axis), last], axis)
        values = before + 2 * values + after
    scale = 4 ** (image.ndim - 1)
    if wide is jnp.int32:
        return ((values + scale // 2) // scale).astype(image.dtype)
    return values / scale


def _planes(blocks: jax.Array, color: str) -> tuple[jax.Array, ...]:
    """[*cell, *grid, C] -> C arrays float32 [*cell, *grid]."""
    if color == "lab":
        return colors.lab_planes(blocks)
    return tuple(blocks[..., channel].astype(jnp.float32) for channel in range(blocks.shape[-1]))


def _offsets(cell: Sequence[int]) -> list[np.ndarray]:
    """Places of pixels within their cell, by axis: float32 [*cell, 1, ...]."""
    places = np.indices(cell, dtype=np.float32)
    return [place.reshape(*cell, *(1,) * len(cell)) for place in places]


def _start(values, inside, cell) -> list[jax.Array]:
    """Means of the cells, values first and then places: float32 [*grid] each.

    The paper takes one pixel of low gradient near the middle; the mean is as safe from edges.
    """
    over = tuple(range(len(cell)))
    count = jnp.maximum(jnp.sum(inside, axis=over), 1)
    return [
        jnp.sum(jnp.where(inside, plane, 0), axis=over) / count
        for plane in (*values, *_offsets(cell))
    ]


def _steps(axes: int) -> list[tuple[int, ...]]:
    return list(itertools.product((-1, 0, 1), repeat=axes))


def _seen(plane: jax.Array, step: Sequence[int], fill: float) -> jax.Array:
    """plane[p + step], `fill` outside."""
    # A negative amount cuts off.
    return jax.lax.pad(plane, jnp.float32(fill), [(-s, s, 0) for s in step])


def _assign(values, offsets, centers, spread, cell, compactness, adaptive):
    """The nearest centre of every pixel: its number int32 [*cell, *grid], and which candidate."""
    axes = len(cell)
    channels = len(values)
    square = math.prod(cell) ** (2 / axes)
    pull = 1 / square if adaptive else compactness**2 / square
    best = None
    for number, step in enumerate(_steps(axes)):
        apart = sum(
            (plane - _seen(center, step, 1e6)) ** 2
            for plane, center in zip(values, centers, strict=False)
        )
        if adaptive:
            apart = apart / _seen(spread, step, 1)
        for axis, offset in enumerate(offsets):
            place = _seen(centers[channels + axis], step, 0) + step[axis] * cell[axis]
            apart = apart + pull * (offset - place) ** 2
        code = jax.lax.bitcast_convert_type(apart, jnp.int32) & ~_CODE | number
        best = code if best is None else jnp.minimum(best, code)
    candidate = best & _CODE
    grid = spread.shape
    label = jnp.arange(math.prod(grid), dtype=jnp.int32).reshape(grid)
    for axis, way in enumerate(_ways(candidate, axes)):
        label = label + way * math.prod(grid[axis + 1 :])
    return label, candidate


def _ways(candidate: jax.Array, axes: int) -> list[jax.Array]:
    """The step of a candidate, by axis."""
    return [candidate // 3 ** (axes - 1 - axis) % 3 - 1 for axis in range(axes)]


def _update(values, offsets, inside, assigned, centers, spread, cell, adaptive):
    """Means of what the centres got; a centre that got nothing stays."""
    labels, candidate = assigned
    grid = spread.shape
    count = math.prod(grid)
    index = jnp.where(inside, labels, count).ravel()
    ways = _ways(candidate, len(cell))
    places = [o - way * side for o, way, side in zip(offsets, ways, cell, strict=True)]
    members = jnp.zeros(count).at[index].add(1, mode="drop").reshape(grid)
    sums = [
        jnp.zeros(count).at[index].add(plane.ravel(), mode="drop").reshape(grid)
        for plane in (*values, *places)
    ]
    new = [
        jnp.where(members > 0, total / jnp.maximum(members, 1), old)
        for total, old in zip(sums, centers, strict=True)
    ]
    if adaptive:
        own = [center.ravel()[labels] for center in centers[: len(values)]]
        apart = sum((plane - center) ** 2 for plane, center in zip(values, own, strict=True))
        widest = jnp.zeros(count).at[index].max(apart.ravel(), mode="drop").reshape(grid)
        spread = jnp.maximum(widest, 1)
    return new, spread


def _check(shape, regions, compactness, iterations, color, smallest, channels):
    if not 1 <= regions <= math.prod(shape):
        raise InputError(
            f"regions is {regions}; 1 to the image's {math.prod(shape)} pixels are allowed."
        )
    if not (compactness > 0 and math.isfinite(compactness)):
        raise InputError(f"compactness is {compactness}; numbers above 0 are allowed.")
    if iterations < 1:
        raise InputError(f"iterations is {iterations}; at least 1 is allowed.")
    if not 0 <= smallest <= 1:
        raise InputError(f"smallest is {smallest}; 0 to 1 is allowed.")
    if color not in COLORS:
        raise InputError(f"Unknown color {color!r}; known: {', '.join(COLORS)}.")
    if color == "lab" and channels != 3:
        raise InputError(f'color "lab" needs 3 channels, got {channels}; "none" takes any.')
