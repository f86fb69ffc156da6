"""Maximum flow on a pixel grid by a search forest with exact distances, in scalar steps.

After "Maximum Flows by Incremental Breadth-First Search" (Goldberg, Hed, Kaplan, Tarjan, Werneck,
2011) and its successor ("Faster and More Dynamic ...", 2015). A forest grows, one distance at a
time, from the pixels that can still drain excess. Excess that the forest reaches moves down edge by
edge, the farthest first, so that excess that meets moves on together. When the edge to its parent
fills up, a pixel looks for a new parent among its neighbours: one as near as the last parent or
else the nearest, and then its children must look, too; a pixel farther away than the forest has
grown leaves it. An orphan reads only its neighbours' distances; no path to a root is walked.

The loops update scalars, which takes tens of nanoseconds a step on a CPU and far too long on an
accelerator. XLA updates an array in place only if no fusion both reads and writes it, so every loop
stores in one step what the previous step decided; void stores go to an element behind the image.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # direction 2k is step k, direction 2k + 1 its opposite
_CODES = 16  # a label is distance * _CODES + code
_ROOT = 9
_FAR = 2**31 - 1


class _Grid(NamedTuple):
    """Static sizes of the framed, flattened image: its pixels and the offset of each direction."""

    pixels: int
    offsets: tuple[int, ...]

    def step(self, direction: jax.Array) -> jax.Array:
        step = jnp.int32(self.offsets[0])
        for d, offset in enumerate(self.offsets[1:], 1):
            step = jnp.where(direction == d, offset, step)
        return step


class _Forest(NamedTuple):
    """The search forest: int32 arrays over the pixels of the framed image, and int32 scalars.

    Arrays over pixels end with a void element.
    label: 0 outside the forest; else the distance, 1 at a root, times _CODES plus a code: 1 +
        direction of the parent, _ROOT, or 0 for a pixel without parent, which is in `orphans`.
    first, following: linked lists, one per distance, of the pixels in the forest with excess.
    border: ring of the pixels from which the forest may grow, from `head` to `tail`; those with
        another distance than `level` are stale.
    movers: ring of the pixels whose distance changed, so that their children need a parent.
    children: the directions of these children, as bits.
    walks: number of times that a pixel's excess was listed.
    """

    excess: jax.Array
    caps: jax.Array  # [pixels * D], residual
    label: jax.Array
    first: jax.Array
    following: jax.Array
    border: jax.Array
    orphans: jax.Array
    children: jax.Array
    movers: jax.Array
    head: jax.Array
    tail: jax.Array
    level: jax.Array
    walks: jax.Array


def solve(
    excess: jax.Array, caps: jax.Array, *, limit: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Maximum flow: remaining excess, remaining capacities and the sink's side.

    Args:
        excess: int32 [H, W], supply of each pixel; demand if negative.
        caps: int32 [D, H, W], residual capacity by direction; 0 across the border.
        limit: the search gives up after about this many walks of excess towards a root.

    Returns:
        Excess and capacities after the flow, and bool [H, W], the pixels from which a pixel with
        remaining demand can be reached: the sink's side of a minimum cut unless the limit was hit.
    """
    directions, height, width = caps.shape
    pitch = width + 2
    steps = [dy * pitch + dx for dy, dx in STEPS[: directions // 2]]
    grid = _Grid((height + 2) * pitch, tuple(sign * step for step in steps for sign in (1, -1)))

    def body(forest):
        forest, top = _grow(forest, grid)
        forest, _ = lax.while_loop(
            lambda carry: (carry[1] > 1) & (carry[0].walks < limit), settle, (forest, top)
        )
        return forest._replace(level=forest.level + 1)

    def settle(carry):
        forest, count = carry
        forest, count = _push(forest, count, grid)
        return _resume(_adopt(forest, count, grid), count, grid)

    forest = lax.while_loop(
        lambda forest: (forest.head < forest.tail) & (forest.walks < limit),
        body,
        _plant(excess, caps, grid),
    )

    def inner(flat, *tail):
        return flat.reshape(-1, *tail)[: grid.pixels].reshape(-1, pitch, *tail)[1:-1, 1:-1]

    caps = jnp.moveaxis(inner(forest.caps, directions), -1, 0)
    return inner(forest.excess), caps, inner(forest.label) > 0


def _plant(excess: jax.Array, caps: jax.Array, grid: _Grid) -> _Forest:
    """The forest at the start: one root for each pixel with demand."""
    directions = caps.shape[0]
    excess = jnp.pad(excess, 1)
    caps = jnp.pad(caps, ((0, 0), (1, 1), (1, 1)))
    # The forest can grow from roots with an open edge that comes from a pixel without demand.
    growing = jnp.zeros(excess.shape, bool)
    for d in range(directions):
        dy, dx = STEPS[d // 2]
        shift = (-dy, -dx) if d % 2 == 0 else (dy, dx)
        there, back = jnp.roll(excess, shift, (0, 1)), jnp.roll(caps[d ^ 1], shift, (0, 1))
        growing |= (there >= 0) & (back > 0)
    growing = (growing & (excess < 0)).ravel()
    place = jnp.cumsum(growing, dtype=jnp.int32)
    # A pixel enters the border once per level; the ring holds this level's and the next's.
    ring = 1 << (2 * grid.pixels).bit_length()
    nodes = jnp.arange(grid.pixels, dtype=jnp.int32)
    border = jnp.zeros(ring, jnp.int32)
    border = border.at[jnp.where(growing, place - 1, ring)].set(nodes, mode="drop")
    zero, zeros = jnp.int32(0), jnp.zeros(grid.pixels + 2, jnp.int32)
    return _Forest(
        excess=jnp.pad(excess.ravel(), (0, 1)),
        caps=jnp.pad(jnp.moveaxis(caps, 0, -1).ravel(), (0, directions)),
        label=jnp.pad(jnp.where(excess < 0, _CODES + _ROOT, 0).ravel(), (0, 1)),
        first=zeros,
        following=zeros,
        border=border,
        orphans=zeros,
        children=zeros,
        movers=jnp.zeros(1 << grid.pixels.bit_length(), jnp.int32),
        head=zero,
        tail=place[-1],
        level=jnp.int32(1),
        walks=zero,
    )


def _get(array: jax.Array, index: jax.Array) -> jax.Array:
    return lax.dynamic_slice(array, (index,), (1,), allow_negative_indices=False)[0]


def _put(array: jax.Array, index: jax.Array, value: jax.Array | int) -> jax.Array:
    row = jnp.asarray(value, array.dtype)[None]
    return lax.dynamic_update_slice(array, row, (index,), allow_negative_indices=False)


def _lowest(bits: jax.Array) -> jax.Array:
    """Number of the lowest set bit."""
    return lax.population_count((bits & -bits) - 1)


def _distance(label: jax.Array) -> jax.Array:
    """Distance of a label, times _CODES."""
    return label & -_CODES


def _code(label: jax.Array) -> jax.Array:
    return label & (_CODES - 1)


def _grow(forest: _Forest, grid: _Grid) -> tuple[_Forest, jax.Array]:
    """Adds the pixels with an open edge to the border, and lists those with excess.

    Returns the forest and the largest distance of the listed pixels, 1 if there are none.
    """
    directions, mask = len(grid.offsets), forest.border.size - 1
    end, here = forest.tail, forest.level * _CODES

    def body(carry):
        f, first, listed = carry
        node = _get(f.border, f.head & mask)
        fresh = _distance(_get(f.label, node)) == here
        joining = jnp.int32(0)
        for d, offset in enumerate(grid.offsets):
            there = node + offset
            joins = (_get(f.label, there) == 0) & (_get(f.caps, there * directions + (d ^ 1)) > 0)
            joining |= jnp.where(fresh & joins, 1 << d, 0)

        def join(carry):
            label, following, border, node, joining, tail, first, listed = carry
            direction = _lowest(joining)
            there = node + grid.step(direction)
            active = _get(f.excess, there) > 0
            return (
                _put(label, there, here + _CODES + 1 + (direction ^ 1)),
                _put(following, there, first),
                _put(border, tail & mask, there),
                node,
                joining & (joining - 1),
                tail + 1,
                jnp.where(active, there, first),
                listed + active,
            )

        start = (f.label, f.following, f.border, node, joining, f.tail, first, listed)
        label, following, border, _, _, tail, first, listed = lax.while_loop(
            lambda c: c[4] != 0, join, start
        )
        f = f._replace(label=label, following=following, border=border, head=f.head + 1, tail=tail)
        return f, first, listed

    start = (forest, jnp.int32(0), jnp.int32(0))
    forest, first, listed = lax.while_loop(lambda c: c[0].head < end, body, start)
    top = jnp.where(listed > 0, forest.level + 1, 1)
    lists = _put(forest.first, forest.level + 1, first)
    return forest._replace(first=lists, walks=forest.walks + listed), top


def _push(forest: _Forest, top: jax.Array, grid: _Grid) -> tuple[_Forest, jax.Array]:
    """Moves all listed excess down the trees until it drains or stops at an orphan.

    Returns the forest and the number of orphans, which are stored the farthest first.
    """
    directions = len(grid.offsets)

    def body(carry):
        f, at, count, new = carry
        f = _moved(f, new)
        # A list ends with pixel 0, in the frame: it has no label and no excess, so nothing moves.
        node, lower = _get(f.first, at), _get(f.first, at - 1)
        node_label = _get(f.label, node)
        parent = jnp.maximum(_code(node_label) - 1, 0)
        up = node + grid.step(parent)
        parent_label = _get(f.label, up)
        edge, back = node * directions + parent, up * directions + (parent ^ 1)
        capacity = _get(f.caps, edge)
        node_excess, parent_excess = _get(f.excess, node), _get(f.excess, up)
        flow = jnp.minimum(node_excess, capacity)
        full = (flow > 0) & (flow == capacity)
        filled = (parent_excess < 0) & (parent_excess + flow >= 0)  # a root whose demand is met
        listed = (flow > 0) & (parent_excess == 0) & (_code(parent_label) != 0)
        new = _Move(
            node=node,
            up=up,
            edge=edge,
            back=back,
            excess=(node_excess - flow, parent_excess + flow),
            caps=(capacity - flow, _get(f.caps, back) + flow),
            label=(
                jnp.where(full, _distance(node_label), node_label),
                jnp.where(filled, _distance(parent_label), parent_label),
            ),
            at=at,
            first=(_get(f.following, node), jnp.where(listed, up, lower)),
            listed=jnp.where(listed, up, grid.pixels),
            following=lower,
            place=(count, count + full),
        )
        return f, jnp.where(node == 0, at - 1, at), count + full + filled, new

    void, zero = jnp.int32(grid.pixels), jnp.int32(0)
    edge, pair = void * directions, (zero, zero)
    new = _Move(void, void, edge, edge, pair, pair, pair, void + 1, pair, void, zero, pair)
    start = (forest, top, zero, new)
    forest, _, count, new = lax.while_loop(lambda c: c[1] > 1, body, start)
    return _moved(forest, new), count


class _Move(NamedTuple):
    """The pending stores of one move of excess; pairs belong to the pixel and its parent `up`."""

    node: jax.Array
    up: jax.Array
    edge: jax.Array
    back: jax.Array
    excess: tuple[jax.Array, jax.Array]
    caps: tuple[jax.Array, jax.Array]
    label: tuple[jax.Array, jax.Array]
    at: jax.Array
    first: tuple[jax.Array, jax.Array]
    listed: jax.Array
    following: jax.Array
    place: tuple[jax.Array, jax.Array]


def _moved(forest: _Forest, new: _Move) -> _Forest:
    """The forest after the pending stores of a move."""

    def both(array, indices, values):
        return _put(_put(array, indices[0], values[0]), indices[1], values[1])

    nodes = new.node, new.up
    return forest._replace(
        excess=both(forest.excess, nodes, new.excess),
        caps=both(forest.caps, (new.edge, new.back), new.caps),
        label=both(forest.label, nodes, new.label),
        first=both(forest.first, (new.at, new.at - 1), new.first),
        following=_put(forest.following, new.listed, new.following),
        orphans=both(forest.orphans, new.place, nodes),
    )


def _adopt(forest: _Forest, count: jax.Array, grid: _Grid) -> _Forest:
    """Gives each orphan and each child of a mover the nearest parent, or removes it.

    A pixel whose distance changes becomes a mover until its children are looked at; looking at a
    child twice is harmless.
    """
    directions, ring = len(grid.offsets), forest.movers.size - 1
    limit = (forest.level + 1) * _CODES

    def body(carry):
        f, left, head, last, mover, children, new = carry
        f = _adopted(f, new)
        fetch = (left == 0) & (children == 0)
        mover = jnp.where(fetch, _get(f.movers, head & ring), mover)
        children = jnp.where(fetch, _get(f.children, mover), children)
        child = mover + grid.step(_lowest(children))
        node = jnp.where(left > 0, _get(f.orphans, left - 1), child)
        nearest, children_left = jnp.int32(_FAR), jnp.int32(0)
        for d, offset in enumerate(grid.offsets):
            other = _get(f.label, node + offset)
            open_ = (other > 0) & (_get(f.caps, node * directions + d) > 0)
            nearest = jnp.minimum(nearest, jnp.where(open_, _distance(other) + d, _FAR))
            children_left |= jnp.where(_code(other) == (d ^ 1) + 1, 1 << d, 0)
        old, waiting = _get(f.label, node), _get(f.children, node)
        label = jnp.where((old > 0) & (nearest < limit), nearest + _CODES + 1, 0)
        moves = _distance(label) != _distance(old)
        children_left = waiting | jnp.where(moves, children_left, 0)
        new = (node, label, children_left, jnp.where(fetch, mover, grid.pixels), last, f.tail)
        f = f._replace(tail=f.tail + (moves & (label >= limit)))
        children = jnp.where(left > 0, children, children & (children - 1))
        last = last + ((waiting == 0) & (children_left != 0))
        return f, jnp.maximum(left - 1, 0), head + fetch, last, mover, children, new

    zero, void = jnp.int32(0), jnp.int32(grid.pixels)
    start = (forest, count, zero, zero, zero, zero, (void, zero, zero, void, zero, forest.tail))
    forest, *_, new = lax.while_loop(
        lambda c: (c[1] > 0) | (c[5] != 0) | (c[2] < c[3]), body, start
    )
    return _adopted(forest, new)


def _adopted(forest: _Forest, new) -> _Forest:
    """The forest after the pending stores of an adoption."""
    # A pixel that does not enter a ring is stored behind its end, which is harmless.
    node, label, children, mover, last, tail = new
    return forest._replace(
        label=_put(forest.label, node, label),
        children=_put(_put(forest.children, mover, 0), node, children),
        movers=_put(forest.movers, last & (forest.movers.size - 1), node),
        border=_put(forest.border, tail & (forest.border.size - 1), node),
    )


def _resume(forest: _Forest, count: jax.Array, grid: _Grid) -> tuple[_Forest, jax.Array]:
    """Lists the orphans that got a parent and have excess; returns the same as `_grow`."""

    def body(carry):
        lists, following, at, node, rest, left, top, walks = carry
        lists, following = _put(lists, at, node), _put(following, node, rest)
        node = _get(forest.orphans, left - 1)
        distance = _get(forest.label, node) // _CODES
        active = (distance > 0) & (_get(forest.excess, node) > 0)
        at = jnp.where(active, distance, grid.pixels + 1)
        top = jnp.maximum(top, jnp.where(active, distance, 1))
        return lists, following, at, node, _get(lists, at), left - 1, top, walks + active

    void, zero, one = jnp.int32(grid.pixels), jnp.int32(0), jnp.int32(1)
    start = (forest.first, forest.following, void + 1, void, zero, count, one, forest.walks)
    lists, following, at, node, rest, _, top, walks = lax.while_loop(
        lambda c: c[5] > 0, body, start
    )
    lists, following = _put(lists, at, node), _put(following, node, rest)
    return forest._replace(first=lists, following=following, walks=walks), top
