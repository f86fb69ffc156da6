"""Superpixels by simple linear iterative clustering.

Achanta et al., "SLIC superpixels", EPFL report 149300, 2010, and "SLIC Superpixels Compared to
State-of-the-Art Superpixel Methods", PAMI 2012. K-means in CIELAB and position, each centre near
its place in a grid: a pixel is compared with the centres of its own and the adjoining cells only.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from segjax.classical import barriers, connectivity
from segjax.classical import color as colors
from segjax.errors import InputError, choose

COLORS = ("lab", "none")

_SKIP = 4  # pixels, of which an iteration sees one,
_FEW = 48  # unless a cell has fewer than these
_HALF = 2 | 2 << 10 | 2 << 20  # rounds three fields at once
_BYTES = 255 | 255 << 10 | 255 << 20
_FAR = 1e6  # the colour of a centre that is not there
_CODE = 31  # low bits of a distance that hold the number of a candidate, 27 at most


def slic(
    image: jax.Array,
    *,
    regions: int,
    compactness: float = 10.0,
    iterations: int = 10,
    adaptive: bool = False,
    color: str = "lab",
) -> jax.Array:
    """Superpixels: [H, W, C] -> int32 [H, W], or of a volume [D, H, W, C] -> int32 [D, H, W].

    Args:
        image: uint8 RGB for "lab"; any number of channels of any type for "none".
        regions: superpixels asked for, K. The grid that fits best has about as many cells, never
            more; fewer come out where some are lost.
        compactness: m, how much nearness in the image counts against colour. In "lab" 1 to 40.
        iterations: of assigning pixels and moving centres; each sees a quarter of the pixels,
            another quarter every time. At the end every pixel is assigned.
        adaptive: SLICO: every region is as compact as its own colours' spread allows; then
            `compactness` is where that spread starts.
        color: "lab", or "none" for values as they are.

    Returns:
        Regions 0 to K - 1, each one 4-connected piece (6-connected in a volume), numbered in the
        order of their cells.

    Raises:
        InputError: on options out of range, such as more regions than pixels.
    """
    shape = image.shape[:-1]
    _check(shape, regions, compactness, iterations, color, image.shape[-1])
    cell = cell_shape(shape, regions)
    grid = tuple(-(-length // side) for length, side in zip(shape, cell, strict=True))
    anchor = image.ravel()[0].astype(jnp.float32)
    pixels = barriers.apart(lambda: _pixels(image, cell, grid, color), anchor)
    rule = _Rule(cell, grid, compactness, adaptive)
    # Neighbours in this order are neighbours in the image: every fourth is a fair sample.
    skip = _SKIP if math.prod(cell) >= _FEW else 1
    samples = [_Pixels(*(rows[phase::skip] for rows in pixels)) for phase in range(skip)]
    state = rule.start(samples[0])
    for step in range(iterations):
        state = rule.move(samples[step % skip], state)
    codes = barriers.apart(lambda: rule.nearest(pixels, state)[0], anchor)
    labels, distance = barriers.apart(
        lambda: tuple(_from_blocks(each, cell, grid, shape) for each in rule.read(codes)), anchor
    )
    cost = distance / (distance + rule.compactness**2)
    labels, present = connectivity.connect(labels, cost, regions=math.prod(grid))
    # Numbers without a region close up; the order is that of the cells.
    return (jnp.cumsum(present, dtype=jnp.int32) - 1)[labels]


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


class _Pixels(NamedTuple):
    """Pixels by their place in a cell, P = prod(cell) of them, and by cell, N = prod(grid).

    features: float32 [P, C + axes + 1, N], values, the place within the cell, and 1; all of it 0
    where a cell reaches out of the image. places: float32 [P, axes], the place within the cell.
    """

    features: jax.Array
    places: jax.Array


class _Centers(NamedTuple):
    """values: float32 [C, *grid]; places: [axes, *grid], from the own cell's corner; spread:
    [*grid], the squared distance of colour that counts as one."""

    values: jax.Array
    places: jax.Array
    spread: jax.Array


def _pixels(image: jax.Array, cell: tuple, grid: tuple, color: str) -> _Pixels:
    """Blurred, in blocks, in the space of colours where distances are taken."""
    if color == "lab" and image.dtype == jnp.uint8:
        # Three channels in one word: blurred and moved in a third of the time.
        words = sum(image[..., k].astype(jnp.int32) << (10 * k) for k in range(3))
        for axis in range(words.ndim):
            words = (_sum_121(words, axis) + _HALF >> 2) & _BYTES
        words = _to_blocks(words, cell, grid)

        def planes():
            return colors.lab_planes(jnp.stack([words >> (10 * k) & 255 for k in range(3)], -1))

        values = barriers.apart(planes, words[0, 0].astype(jnp.float32))
    else:
        smooth = image.astype(jnp.float32)
        for axis in range(smooth.ndim - 1):
            smooth = _sum_121(smooth, axis) / 4
        if color == "lab":
            scale = 255 if jnp.issubdtype(image.dtype, jnp.integer) else 1
            smooth = colors.srgb_to_lab(smooth / scale)
        values = [_to_blocks(smooth[..., k], cell, grid) for k in range(smooth.shape[-1])]
    places = np.indices(cell, dtype=np.float32).reshape(len(cell), -1).T
    corners = np.indices(grid, dtype=np.float32).reshape(len(grid), -1)
    inside = True
    for axis, length in enumerate(image.shape[:-1]):
        inside &= places[:, axis, None] + cell[axis] * corners[axis] < length
    features = [*values, *(place[:, None] for place in places.T), 1]
    features = jnp.stack([jnp.where(inside, feature, 0) for feature in features], 1)
    return _Pixels(features.astype(jnp.float32), jnp.asarray(places))


def _sum_121(values: jax.Array, axis: int) -> jax.Array:
    """before + 2 values + after along an axis; the border goes on."""
    length = values.shape[axis]

    def part(start, stop):
        return jax.lax.slice_in_dim(values, start, stop, axis=axis)

    if length == 1:
        return 4 * values
    first = 3 * part(0, 1) + part(1, 2)
    last = part(length - 2, length - 1) + 3 * part(length - 1, length)
    inner = part(0, length - 2) + 2 * part(1, length - 1) + part(2, length)
    return jnp.concatenate([first, inner, last], axis)


def _to_blocks(plane: jax.Array, cell: Sequence[int], grid: Sequence[int]) -> jax.Array:
    """[*shape] -> [P, N]; zeros where cells reach outside."""
    axes = len(cell)
    pads = [(0, c * g - n) for c, g, n in zip(cell, grid, plane.shape, strict=True)]
    split = [side for pair in zip(grid, cell, strict=True) for side in pair]
    order = [*range(1, 2 * axes, 2), *range(0, 2 * axes, 2)]
    blocks = jnp.pad(plane, pads).reshape(split).transpose(order)
    return blocks.reshape(math.prod(cell), math.prod(grid))


def _from_blocks(
    blocks: jax.Array, cell: Sequence[int], grid: Sequence[int], shape: Sequence[int]
) -> jax.Array:
    """[P, N] -> [*shape]."""
    axes = len(shape)
    order = [axis for pair in zip(range(axes, 2 * axes), range(axes), strict=True) for axis in pair]
    whole = blocks.reshape(*cell, *grid).transpose(order)
    whole = whole.reshape([c * g for c, g in zip(cell, grid, strict=True)])
    return whole[tuple(slice(length) for length in shape)]


class _Rule:
    """Which centre a pixel goes to, and where centres go.

    A pixel's candidates are the centres of its own cell and those around, K = 3^axes shifted grids,
    so that nothing is gathered or scattered.

    Args:
        cell, grid: pixels in a cell, cells in the image, by axis.
        compactness, adaptive: of `slic`.
    """

    def __init__(self, cell: tuple, grid: tuple, compactness: float, adaptive: bool):
        self.cell, self.grid, self.adaptive = cell, grid, adaptive
        self.compactness = compactness
        self.steps = list(itertools.product((-1, 0, 1), repeat=len(cell)))
        square = math.prod(cell) ** (2 / len(cell))
        self.pull = (1 if adaptive else compactness**2) / square

    def start(self, pixels: _Pixels) -> _Centers:
        """The means of the cells.

        The paper takes one pixel of low gradient near the middle; a mean is as safe from edges.
        """
        sums = jnp.sum(pixels.features, axis=0).reshape(-1, *self.grid)
        mean = sums[:-1] / jnp.maximum(sums[-1], 1)
        axes = len(self.cell)
        spread = jnp.full(self.grid, self.compactness**2, jnp.float32)
        return _Centers(mean[:-axes], mean[-axes:], spread)

    def read(self, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The centre, int32 [P, N], 0 to N - 1, and the squared distance to it: of `nearest`."""
        label = np.arange(math.prod(self.grid), dtype=np.int32)
        axes = len(self.cell)
        for axis in range(axes):
            way = (codes & _CODE) // 3 ** (axes - 1 - axis) % 3 - 1
            label = label + way * math.prod(self.grid[axis + 1 :])
        return label, jax.lax.bitcast_convert_type(codes & ~_CODE, jnp.float32)

    def move(self, pixels: _Pixels, centers: _Centers) -> _Centers:
        """Centres to the means of what they get; one that gets nothing stays."""
        codes, apart = self.nearest(pixels, centers)
        nearest = codes & _CODE
        sums = jax.lax.platform_dependent(
            nearest, pixels.features, cpu=self._sums_by_row, default=self._sums_at_once
        )
        channels, axes = len(centers.values), len(self.cell)
        total = 0
        for k, step in enumerate(self.steps):  # back to the cells of the centres
            part = sums[k].reshape(-1, *self.grid)
            moved = [part[channels + a] - step[a] * self.cell[a] * part[-1] for a in range(axes)]
            part = jnp.stack([*part[:channels], *moved, part[-1]])
            total = total + _seen(part, [-way for way in step], 0)
        old = jnp.concatenate([centers.values, centers.places])
        new = jnp.where(total[-1] > 0, total[:-1] / jnp.maximum(total[-1], 1), old)
        spread = centers.spread
        if self.adaptive:
            spread = 1
            for k, step in enumerate(self.steps):
                member = (nearest == k) & (pixels.features[:, -1] > 0)
                widest = jnp.max(jnp.where(member, apart, 0), axis=0).reshape(self.grid)
                spread = jnp.maximum(spread, _seen(widest, [-way for way in step], 0))
        return _Centers(new[:channels], new[channels:], spread)

    def _sums_by_row(self, nearest: jax.Array, features: jax.Array) -> jax.Array:
        """Features of what goes to each candidate: [P, N], [P, F, N] -> [K, F, N].

        One pixel of every cell at a time, in one order for one image and for a batch.
        """
        number = np.arange(len(self.steps))[:, None]

        def row(sums, pixel):
            nearest, features = pixel
            return sums + jnp.where((number == nearest)[:, None], features, 0), None

        zeros = jnp.zeros((len(self.steps), *features.shape[1:]))
        return jax.lax.scan(row, zeros, (nearest, features))[0]

    def _sums_at_once(self, nearest: jax.Array, features: jax.Array) -> jax.Array:
        """The same as one product of matrices a cell."""
        member = jax.nn.one_hot(nearest, len(self.steps), axis=1)
        return jnp.einsum("pkn,pfn->kfn", member, features, precision=jax.lax.Precision.HIGHEST)

    def nearest(self, pixels: _Pixels, centers: _Centers) -> tuple[jax.Array, jax.Array]:
        """The nearest candidate: [P, N], its code int32, and the squared distance of colours.

        A code is the bits of the squared distance, the last of them the candidate's number.
        """
        best = chosen = None
        for k, step in enumerate(self.steps):
            apart = pull = 0
            for channel, center in enumerate(_seen(centers.values, step, _FAR)):
                apart = apart + (pixels.features[:, channel] - center.ravel()) ** 2
            for axis, center in enumerate(_seen(centers.places, step, 0)):
                corner = step[axis] * self.cell[axis]
                pull = pull + (pixels.places[:, axis, None] - (center.ravel() + corner)) ** 2
            spread = _seen(centers.spread, step, 1).ravel() if self.adaptive else 1
            distance = apart / spread + self.pull * pull
            # Non-negative floats are ordered as their bits are; the lowest hold the number.
            code = jax.lax.bitcast_convert_type(distance, jnp.int32) & ~_CODE | k
            chosen = apart if chosen is None else jnp.where(code < best, apart, chosen)
            best = code if best is None else jnp.minimum(best, code)
        return best, chosen


def _seen(values: jax.Array, step: Sequence[int], fill: float) -> jax.Array:
    """values[..., p + step], `fill` outside."""
    # A negative amount cuts off.
    amounts = [(0, 0, 0)] * (values.ndim - len(step)) + [(-way, way, 0) for way in step]
    return jax.lax.pad(values, jnp.array(fill, values.dtype), amounts)


def _check(shape, regions, compactness, iterations, color, channels):
    if not 1 <= regions <= math.prod(shape):
        raise InputError(
            f"regions is {regions}; 1 to the image's {math.prod(shape)} pixels are allowed."
        )
    if not (compactness > 0 and math.isfinite(compactness)):
        raise InputError(f"compactness is {compactness}; numbers above 0 are allowed.")
    if iterations < 1:
        raise InputError(f"iterations is {iterations}; at least 1 is allowed.")
    choose("color", color, COLORS)
    if color == "lab" and channels != 3:
        raise InputError(f'color "lab" needs 3 channels, got {channels}; "none" takes any.')
