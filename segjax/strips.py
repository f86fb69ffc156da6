"""Maps whose rows are split over devices, and the operations that look across rows.

Under a mesh (see `sharding.on`) whose axis "space" has n devices, each holds a strip of every map:
ceil(H / n) rows, the last devices fewer. An operation with windows of rows asks the neighbours for
the rows that its own windows reach, and computes its own rows of the result. Compilers can do the
same, but what they make of it depends on what stands around it: they gathered whole maps, and some
gradients of maps of one row a device were wrong (jaxlib 0.10.2). Without such a mesh each function
sees the whole map.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

AXIS = "space"
"""The axis of the mesh whose devices share an image."""


def count() -> int:
    """The devices that share an image in the program that is being traced: n, 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or AXIS not in mesh.axis_names or AXIS in mesh.manual_axes:
        return 1
    return int(mesh.shape[AXIS])


def split(x: jax.Array, axis: int = 1) -> jax.Array:
    """The same array, its rows along an axis in strips on the devices."""
    if count() == 1:
        return x
    kept = (*[slice(None)] * axis, slice(x.shape[axis]))
    return _constrained(padded(x, axis=axis), axis, AXIS)[kept]


def whole(x: jax.Array) -> jax.Array:
    """The same map [B, h, ...], all rows on every device."""
    return x if count() == 1 else _constrained(x, 1, None)


def _constrained(x: jax.Array, axis: int, name: str | None) -> jax.Array:
    by_axis = (name if i == axis else P.UNCONSTRAINED for i in range(x.ndim))
    constrained: jax.Array = jax.lax.with_sharding_constraint(x, P(*by_axis))
    return constrained


def padded(x: jax.Array, fill: float = 0.0, *, axis: int = 1) -> jax.Array:
    """An array with rows at the end of an axis, so that n devices hold strips of one height."""
    rows = -x.shape[axis] % count()
    pads = [(0, rows if i == axis else 0) for i in range(x.ndim)]
    return jnp.pad(x, pads, constant_values=fill) if rows else x


def windows(
    fn: Callable[..., Any],
    x: jax.Array,
    *weights: jax.Array,
    reach: int,
    rows: int,
    stride: int = 1,
    before: int = 0,
    fill: float = 0.0,
) -> Any:
    """A function of windows of rows, of which every device computes its strip of the result.

    Row j of the result is a function of the rows stride j - before to stride j - before + reach - 1
    of x. With weights, x is kept for the gradient without its borders, which are asked for again.

    Args:
        fn: (x, *weights) -> arrays [B, r, ...], of x with all rows that r results need: it pads no
            rows.
        x: [B, H, ...], the map.
        weights: arrays that all devices have.
        reach: rows of a window.
        rows: h, of the result.
        stride: step between windows.
        before: rows before the first row of x that the first window reaches; below 0: rows skipped.
        fill: what lies outside of x.

    Returns:
        The results of `fn` for the whole map: [B, h, ...].
    """
    n = count()
    if n == 1:
        after = (rows - 1) * stride + reach - before - x.shape[1]
        pads = [(before, after, 0) if axis == 1 else (0, 0, 0) for axis in range(x.ndim)]
        return fn(jax.lax.pad(x, jnp.asarray(fill, x.dtype), pads), *weights)
    tile, out = -(-x.shape[1] // n), -(-rows // n)
    starts = [i * (out * stride - tile) - before for i in range(n)]
    length = (out - 1) * stride + reach
    return _cut(_from_rows(fn, x, weights, starts, length, fill), rows)


def pairs(fn: Callable[[jax.Array], Any], x: jax.Array, fill: float) -> Any:
    """A function of pairs of rows: [B, 2h, ...] -> [B, h, ...]; `fill` lies outside of x."""
    return windows(fn, x, reach=2, rows=x.shape[1] // 2, stride=2, fill=fill)


def each(fn: Callable[[Any], Any], x: Any, rows: int) -> Any:
    """A function of single rows, the first `rows` of its result: [B, h, ...] -> [B, rows, ...].

    Each row of x, an array or several of one height, gives as many rows of the result.
    """
    if count() == 1:
        return _cut(fn(x), rows)
    return _cut(_over(lambda _, x: fn(x), jax.tree.map(padded, x)), rows)


def by_channel(fn: Callable[..., jax.Array], fixed: Any, x: jax.Array) -> jax.Array:
    """A function fn(fixed, x) of each channel by itself, [N, C] -> [N, C].

    Every device has all of `fixed`, and all rows of its share of the channels. Fewer channels than
    devices are not split.
    """
    n = count()
    if n == 1 or x.shape[1] < n:
        return fn(fixed, x)
    channels = P(None, AXIS)
    mapped = jax.shard_map(
        fn, in_specs=(P(), channels), out_specs=channels, axis_names={AXIS}, check_vma=False
    )
    result: jax.Array = mapped(fixed, padded(x, axis=1))[:, : x.shape[1]]
    return result


@dataclasses.dataclass(frozen=True)
class Bands:
    """A matrix whose rows weigh rows of a map that lie near them, cut into the devices' strips.

    Attributes:
        rows: float32 [H, length], n dividing H: the weights, from the first row of the map that a
            strip needs.
        starts: where this row lies, counted from the first row that the device holds.
    """

    rows: np.ndarray
    starts: tuple[int, ...]

    def bring(self, x: jax.Array) -> jax.Array:
        """The rows of a map that each strip needs, strip after strip: -> [B, n length, W, C]."""
        brought: jax.Array = _from_rows(
            lambda x: x, x, (), self.starts, self.rows.shape[1], fill=0.0
        )
        return brought


def bands_of(matrix: np.ndarray) -> Bands | None:
    """The bands of a matrix [H, h]; None without devices to split over, or if it has none."""
    n = count()
    if n == 1 or min(matrix.shape) < n:
        return None
    tile, out = (-(-size // n) for size in reversed(matrix.shape))
    parts = [matrix[i * out : (i + 1) * out] for i in range(n)]
    seen = [np.flatnonzero(part.any(axis=0)) for part in parts]
    spans = [(s[0], s[-1] + 1) if len(s) else (i * tile,) * 2 for i, s in enumerate(seen)]
    length = int(max(last - first for first, last in spans))
    if length > matrix.shape[1] // 2:
        return None
    rows = np.zeros((n, out, length), matrix.dtype)
    for strip, part, (first, last) in zip(rows, parts, spans, strict=True):
        strip[: len(part), : last - first] = part[:, first:last]
    starts = tuple(int(first) - i * tile for i, (first, _) in enumerate(spans))
    return Bands(rows.reshape(n * out, length), starts)


def product(matrix: np.ndarray | jax.Array, x: jax.Array) -> jax.Array:
    """The product of a matrix and the rows of a map: [H, h], [B, h, W, C] -> [B, H, W, C].

    The product has full float32 precision.
    """
    bands = bands_of(matrix) if isinstance(matrix, np.ndarray) else None
    if bands is None:
        return _weighed(matrix, x)
    return weighed(bands.rows, bands.bring(x))[:, : len(matrix)]


def weighed(rows: np.ndarray | jax.Array, x: jax.Array) -> jax.Array:
    """The product of rows of `Bands`, [r, length], and what they bring: [B, r, W, C]."""
    by_rows: jax.Array = _over(lambda _, pair: _weighed(pair[0][0], pair[1]), (rows[None], x))
    return by_rows


def _weighed(matrix: np.ndarray | jax.Array, x: jax.Array) -> jax.Array:
    return jnp.einsum("Hh,bhwc->bHwc", matrix, x, precision="highest")


def _cut(x: Any, rows: int) -> Any:
    return jax.tree.map(lambda y: y[:, :rows], x)


def _over(fn: Callable[..., Any], x: Any, *weights: jax.Array) -> Any:
    """fn(place, x, *weights) on every device, on its strips: x and results [B, n r, ...].

    `place` is the device's number in its row of the mesh. It comes as an argument, as programs that
    the compiler splits along one axis alone may not ask for it (`axis_index`, jaxlib 0.10.2).
    """

    def local(places: jax.Array, x: Any, *weights: jax.Array) -> Any:
        return fn(places[0], x, *(jax.lax.pcast(w, AXIS, to="varying") for w in weights))

    rows = P(None, AXIS)
    mapped = jax.shard_map(
        local,
        in_specs=(P(AXIS), rows, *(P() for _ in weights)),
        out_specs=rows,
        axis_names={AXIS},
    )
    return mapped(jnp.arange(count()), x, *weights)


def _from_rows(
    fn: Callable[..., Any],
    x: jax.Array,
    weights: tuple[jax.Array, ...],
    starts: Sequence[int],
    length: int,
    fill: float,
) -> Any:
    """`fn` of so many rows on every device, from `starts` on, counted from its strip's first."""
    tile = -(-x.shape[1] // len(starts))
    above, below = max(0, -min(starts)), max(0, max(starts) + length - tile)

    def strip(place: jax.Array, x: jax.Array, *weights: jax.Array) -> Any:
        x = _with_borders(place, x, above, below, fill)
        if len(set(starts)) == 1:
            first = above + starts[0]
            return fn(jax.lax.slice_in_dim(x, first, first + length, axis=1), *weights)
        begin = jnp.asarray(starts)[place] + above
        return fn(jax.lax.dynamic_slice_in_dim(x, begin, length, axis=1), *weights)

    return _over(jax.checkpoint(strip) if weights else strip, padded(x, fill), *weights)


def _with_borders(place: jax.Array, x: jax.Array, above: int, below: int, fill: float) -> jax.Array:
    """A strip with the rows above and below it, which other strips hold: [B, r, ...]."""
    tile = x.shape[1]
    parts = [x]
    for hop in range(1, -(-above // tile) + 1):
        wanted = min(tile, above - (hop - 1) * tile)
        parts.insert(0, _sent(place, x[:, tile - wanted :], hop, fill))
    for hop in range(1, -(-below // tile) + 1):
        wanted = min(tile, below - (hop - 1) * tile)
        parts.append(_sent(place, x[:, :wanted], -hop, fill))
    return jnp.concatenate(parts, axis=1) if len(parts) > 1 else x


def _sent(place: jax.Array, rows: jax.Array, hop: int, fill: float) -> jax.Array:
    """The rows that the device `hop` places before sends; `fill` where there is none."""
    n = jax.lax.axis_size(AXIS)
    routes = [(i, i + hop) for i in range(n) if 0 <= i + hop < n]
    if not routes:
        return jnp.full_like(rows, fill)
    sent: jax.Array = jax.lax.ppermute(rows, AXIS, routes)
    if fill == 0:
        return sent  # a device that receives nothing has zeros
    source = place - hop
    return jnp.where((source >= 0) & (source < n), sent, jnp.asarray(fill, rows.dtype))
