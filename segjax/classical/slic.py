"""SLIC: superpixels by simple linear iterative clustering.

Achanta et al., "SLIC superpixels", EPFL report 149300, 2010, and "SLIC Superpixels Compared to
State-of-the-Art Superpixel Methods", PAMI 2012. K-means in CIELAB and position, with one centre per
cell of a grid: a pixel is compared only with the centres of its cell and the adjoining cells.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from segjax import arrays, contracts
from segjax.classical import barriers, connectivity
from segjax.classical import color as colors
from segjax.errors import InputError, choose

COLORS = ("lab", "none")

_SKIP = 4  # an iteration uses one of so many pixels,
_FEW = 48  # unless a cell has fewer pixels than this
_HALF = 2 | 2 << 10 | 2 << 20  # rounds three packed channels at once
_BYTES = 255 | 255 << 10 | 255 << 20
_FAR = math.inf  # colour of a centre outside the grid
_MOST = 1e15  # of values, whose squares stay finite
_CODE = 31  # low bits of a distance, which store the candidate's number, at most 27


def slic(
    image: jax.Array,
    *,
    regions: int,
    compactness: float = 10.0,
    iterations: int = 10,
    adaptive: bool = False,
    color: str = "lab",
) -> jax.Array:
    """Superpixels of an image, [H, W, C] -> int32 [H, W], or of a volume, with one more axis.

    Args:
        image: for "lab" see `contracts.image`, with one more axis for a volume; floats are rounded
            to whole numbers. For "none" [H, W, C], any channels of numbers within +-1e15.
        regions: requested number of superpixels, K. The best grid has about as many cells, never
            more; regions may get lost, so that fewer result.
        compactness: m, the weight of distance in the image against distance in colour; 1 to 40 for
            "lab".
        iterations: rounds of assigning pixels and moving centres; each uses a quarter of the
            pixels, in turn. Finally every pixel is assigned.
        adaptive: SLICO: each region's compactness follows the spread of its colours, which starts
            at `compactness`.
        color: "lab" (CIELAB), or "none" for unconverted values.

    Returns:
        Regions 0 to K - 1, each 4-connected (6-connected in a volume), numbered in the order of
        their cells.

    Raises:
        InputError: if an option is out of its range, such as more regions than pixels, or the
            array is no image.
    """
    choose("color", color, COLORS)
    image = _checked(image, color)
    shape = image.shape[:-1]
    _check(shape, regions, compactness, iterations)
    cell = cell_shape(shape, regions)
    grid = tuple(-(-length // side) for length, side in zip(shape, cell, strict=True))
    anchor = image.ravel()[0].astype(jnp.float32)
    pixels = barriers.materialize(lambda: _pixels(image, cell, grid, color), anchor)
    rule = _Rule(cell, grid, compactness, adaptive)
    # This order keeps neighbours of the image together, so every fourth is a fair sample.
    skip = _SKIP if math.prod(cell) >= _FEW else 1
    samples = [_Pixels(*(rows[phase::skip] for rows in pixels)) for phase in range(skip)]
    state = rule.start(samples[0])
    for step in range(iterations):
        state = rule.move(samples[step % skip], state)
    codes = barriers.materialize(lambda: rule.nearest(pixels, state)[0], anchor)
    labels, distance = barriers.materialize(
        lambda: tuple(_from_blocks(each, cell, grid, shape) for each in rule.read(codes)), anchor
    )
    cost = distance / (distance + rule.compactness**2)
    labels, present = connectivity.connect(labels, cost, regions=math.prod(grid))
    # Closes the gaps of missing regions; the order of the cells stays.
    return (jnp.cumsum(present, dtype=jnp.int32) - 1)[labels]


def cell_shape(shape: Sequence[int], regions: int) -> tuple[int, ...]:
    """The cell, in whole pixels, of the best grid with at most `regions` cells.

    The best grid has nearly `regions` cells, which are nearly cubes and lie mostly inside.
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
    """Pixels ordered by their place in a cell, P = prod(cell), and by cell, N = prod(grid).

    features: float32 [P, C + axes + 1, N], values, place within the cell and 1; all 0 for pixels
    outside the image. places: float32 [P, axes], place within the cell.
    """

    features: jax.Array
    places: jax.Array


class _Centers(NamedTuple):
    """The centres of all cells.

    values: float32 [C, *grid]; places: [axes, *grid], relative to the corner of the centre's cell;
    spread: [*grid], squared colour distance that counts as one.
    """

    values: jax.Array
    places: jax.Array
    spread: jax.Array


def _pixels(image: jax.Array, cell: tuple, grid: tuple, color: str) -> _Pixels:
    """The blurred image in blocks, in the colour space of the distances."""
    values: Iterable[jax.Array]
    if color == "lab":
        # Three channels packed in one word are blurred and moved in a third of the time.
        words = arrays.total(image[..., k].astype(jnp.int32) << (10 * k) for k in range(3))
        for axis in range(words.ndim):
            words = (_sum_121(words, axis) + _HALF >> 2) & _BYTES
        words = _to_blocks(words, cell, grid)

        def converted() -> tuple[jax.Array, ...]:
            return colors.lab_planes(jnp.stack([words >> (10 * k) & 255 for k in range(3)], -1))

        values = barriers.materialize(converted, words[0, 0].astype(jnp.float32))
    else:
        smooth = image.astype(jnp.float32)
        for axis in range(smooth.ndim - 1):
            smooth = _sum_121(smooth, axis) / 4
        values = [_to_blocks(smooth[..., k], cell, grid) for k in range(smooth.shape[-1])]
    places = np.indices(cell, dtype=np.float32).reshape(len(cell), -1).T
    corners = np.indices(grid, dtype=np.float32).reshape(len(grid), -1)
    inside = True
    for axis, length in enumerate(image.shape[:-1]):
        inside &= places[:, axis, None] + cell[axis] * corners[axis] < length
    planes: list[jax.Array | np.ndarray | int] = [
        *values,
        *(place[:, None] for place in places.T),
        1,
    ]
    features = jnp.stack([jnp.where(inside, plane, 0) for plane in planes], 1)
    return _Pixels(features.astype(jnp.float32), jnp.asarray(places))


def _sum_121(values: jax.Array, axis: int) -> jax.Array:
    """before + 2 values + after along an axis; the border is repeated."""
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
    """Pixels in blocks: [*shape] -> [P, N]; zeros outside the image."""
    axes = len(cell)
    pads = [(0, c * g - n) for c, g, n in zip(cell, grid, plane.shape, strict=True)]
    split = [side for pair in zip(grid, cell, strict=True) for side in pair]
    order = [*range(1, 2 * axes, 2), *range(0, 2 * axes, 2)]
    blocks = jnp.pad(plane, pads).reshape(split).transpose(order)
    return blocks.reshape(math.prod(cell), math.prod(grid))


def _from_blocks(
    blocks: jax.Array, cell: Sequence[int], grid: Sequence[int], shape: Sequence[int]
) -> jax.Array:
    """The inverse of `_to_blocks`: [P, N] -> [*shape]."""
    axes = len(shape)
    order = [axis for pair in zip(range(axes, 2 * axes), range(axes), strict=True) for axis in pair]
    whole = blocks.reshape(*cell, *grid).transpose(order)
    whole = whole.reshape([c * g for c, g in zip(cell, grid, strict=True)])
    return whole[tuple(slice(length) for length in shape)]


class _Rule:
    """The rule that assigns pixels to centres and moves centres.

    The candidates of a pixel are the centres of its cell and of the cells around it, K = 3^axes
    shifted grids, so that no gather or scatter is needed.

    Args:
        cell, grid: pixels per cell and cells per image along each axis.
        compactness, adaptive: see `slic`.
    """

    def __init__(self, cell: tuple, grid: tuple, compactness: float, adaptive: bool):
        self.cell, self.grid, self.adaptive = cell, grid, adaptive
        self.compactness = compactness
        self.steps = list(itertools.product((-1, 0, 1), repeat=len(cell)))
        square = math.prod(cell) ** (2 / len(cell))
        self.pull = (1 if adaptive else compactness**2) / square

    def start(self, pixels: _Pixels) -> _Centers:
        """The initial centres, the means of the cells.

        The paper takes a pixel of low gradient near the middle; a mean avoids edges as well.
        """
        sums = jnp.sum(pixels.features, axis=0).reshape(-1, *self.grid)
        mean = sums[:-1] / jnp.maximum(sums[-1], 1)
        axes = len(self.cell)
        spread = jnp.full(self.grid, self.compactness**2, jnp.float32)
        return _Centers(mean[:-axes], mean[-axes:], spread)

    def read(self, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Centre, int32 [P, N], 0 to N - 1, and squared distance from the codes of `nearest`."""
        cells = np.arange(math.prod(self.grid), dtype=np.int32)
        axes = len(self.cell)

        def moved(axis: int) -> jax.Array:
            steps = (codes & _CODE) // 3 ** (axes - 1 - axis) % 3 - 1
            return steps * math.prod(self.grid[axis + 1 :])

        label = arrays.total(itertools.chain([cells], map(moved, range(axes))))
        return label, jax.lax.bitcast_convert_type(codes & ~_CODE, jnp.float32)

    def move(self, pixels: _Pixels, centers: _Centers) -> _Centers:
        """Centres moved to the means of their pixels; a centre without pixels stays."""
        codes, apart = self.nearest(pixels, centers)
        nearest = codes & _CODE
        sums = jax.lax.platform_dependent(
            nearest, pixels.features, cpu=self._sums_by_row, default=self._sums_at_once
        )
        channels, axes = len(centers.values), len(self.cell)

        def shifted(k: int) -> jax.Array:
            """The sums of a candidate, in the cells of the centres."""
            step, part = self.steps[k], sums[k].reshape(-1, *self.grid)
            moved = [part[channels + a] - step[a] * self.cell[a] * part[-1] for a in range(axes)]
            part = jnp.stack([*part[:channels], *moved, part[-1]])
            return _seen(part, [-way for way in step], 0)

        total = arrays.total(map(shifted, range(len(self.steps))))
        old = jnp.concatenate([centers.values, centers.places])
        new = jnp.where(total[-1] > 0, total[:-1] / jnp.maximum(total[-1], 1), old)
        spread = self._spread(pixels, nearest, apart) if self.adaptive else centers.spread
        return _Centers(new[:channels], new[channels:], spread)

    def _spread(self, pixels: _Pixels, nearest: jax.Array, apart: jax.Array) -> jax.Array:
        """The largest squared colour distance of each centre's pixels, 1 or more."""

        def widest(k: int) -> jax.Array:
            member = (nearest == k) & (pixels.features[:, -1] > 0)
            most = jnp.max(jnp.where(member, apart, 0), axis=0).reshape(self.grid)
            return _seen(most, [-way for way in self.steps[k]], 0)

        return functools.reduce(jnp.maximum, map(widest, range(len(self.steps))), jnp.float32(1))

    def _sums_by_row(self, nearest: jax.Array, features: jax.Array) -> jax.Array:
        """Sums of the features of each candidate's pixels: [P, N], [P, F, N] -> [K, F, N].

        It adds one pixel of every cell at a time, in the same order for one image and a batch.
        """
        number = np.arange(len(self.steps))[:, None]

        def row(sums, pixel):
            nearest, features = pixel
            return sums + jnp.where((number == nearest)[:, None], features, 0), None

        zeros = jnp.zeros((len(self.steps), *features.shape[1:]))
        return jax.lax.scan(row, zeros, (nearest, features))[0]

    def _sums_at_once(self, nearest: jax.Array, features: jax.Array) -> jax.Array:
        """The result of `_sums_by_row` by one matrix product per cell."""
        member = jax.nn.one_hot(nearest, len(self.steps), axis=1)
        return jnp.einsum("pkn,pfn->kfn", member, features, precision=jax.lax.Precision.HIGHEST)

    def nearest(self, pixels: _Pixels, centers: _Centers) -> tuple[jax.Array, jax.Array]:
        """The nearest candidate of each pixel: code int32 [P, N] and squared colour distance.

        A code is the bits of the squared distance, with the candidate's number in the lowest bits.
        """
        best, chosen = self._compared(pixels, centers, 0)
        for k in range(1, len(self.steps)):
            code, apart = self._compared(pixels, centers, k)
            chosen = jnp.where(code < best, apart, chosen)
            best = jnp.minimum(best, code)
        return best, chosen

    def _compared(self, pixels: _Pixels, centers: _Centers, k: int) -> tuple[jax.Array, jax.Array]:
        """The code and the squared colour distance of each pixel and its candidate k."""
        step = self.steps[k]
        apart = arrays.total(
            (pixels.features[:, channel] - center.ravel()) ** 2
            for channel, center in enumerate(_seen(centers.values, step, _FAR))
        )
        pull = arrays.total(
            (pixels.places[:, axis, None] - (center.ravel() + step[axis] * self.cell[axis])) ** 2
            for axis, center in enumerate(_seen(centers.places, step, 0))
        )
        spread = _seen(centers.spread, step, 1).ravel() if self.adaptive else 1
        distance = apart / spread + self.pull * pull
        # Non-negative floats are ordered like their bits; the lowest bits hold the number.
        return jax.lax.bitcast_convert_type(distance, jnp.int32) & ~_CODE | k, apart


def _seen(values: jax.Array, step: Sequence[int], fill: float) -> jax.Array:
    """values[..., p + step], or `fill` outside."""
    # A negative amount crops.
    amounts = [(0, 0, 0)] * (values.ndim - len(step)) + [(-way, way, 0) for way in step]
    return jax.lax.pad(values, jnp.array(fill, values.dtype), amounts)


def _checked(image: jax.Array, color: str) -> jax.Array:
    """uint8 [..., 3] for "lab", float32 [..., C] for "none"."""
    if color == "none":
        form = "[H, W, C] or [D, H, W, C]"
        return contracts.numbers(image, "image", form, least=-_MOST, most=_MOST)
    image = contracts.image(image, form="[H, W, 3] or [D, H, W, 3] or [H, W]")
    if image.dtype == jnp.uint8:
        return image
    # Converting first would be undefined for numbers that are not known to be in the range.
    return jnp.clip(jnp.round(image), 0, contracts.WHITE).astype(jnp.uint8)


def _check(shape, regions, compactness, iterations):
    if not 1 <= regions <= math.prod(shape):
        raise InputError(
            f"regions is {regions}; 1 to the image's {math.prod(shape)} pixels are allowed."
        )
    if not (compactness > 0 and math.isfinite(compactness)):
        raise InputError(f"compactness is {compactness}; numbers above 0 are allowed.")
    if iterations < 1:
        raise InputError(f"iterations is {iterations}; at least 1 is allowed.")
