"""Maximum flow on a pixel grid by growing two search trees, one scalar step at a time.

"An Experimental Comparison of Min-Cut/Max-Flow Algorithms for Energy Minimization in Vision"
(Boykov, Kolmogorov, 2004), section 3. Trees grow from the pixels that still hold excess (positive
links) and from those that can still drain some (negative links); where they touch a path is
saturated, and pixels cut off from their root look for another parent or become free.

Loops of scalar updates: ten nanoseconds a step on a CPU, hopeless on an accelerator. XLA keeps an
array in place only where no fusion both reads and writes it, so every loop here stores in one step
what the step before decided; index 0, a corner of the frame around the image, takes what is void.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # direction 2k is step k, direction 2k + 1 its opposite


class _Trees(NamedTuple):
    """Arrays over the pixels of the framed image, flattened; scalars int32.

    link: 0 for a free pixel; else its sign is the tree's, and its size 1 + direction of the parent,
        D + 1 for a root, D + 2 for an orphan.
    stamp, depth: the last augmentation that found this pixel connected to its root, and how far.
    queue: ring of the pixels from which a tree may grow, `head` to `tail`; `queued` marks them.
    """

    excess: jax.Array
    caps: jax.Array  # [pixels * D], residual
    link: jax.Array
    stamp: jax.Array
    depth: jax.Array
    queue: jax.Array
    queued: jax.Array
    orphans: jax.Array
    head: jax.Array
    tail: jax.Array
    time: jax.Array


class _Grid(NamedTuple):
    """Static: the number of directions and the row length of the framed image."""

    directions: int
    pitch: int

    def step(self, direction: jax.Array) -> jax.Array:
        """Offset in the flattened image."""
        axis, step = direction >> 1, 0
        for k, (dy, dx) in enumerate(STEPS[: self.directions // 2]):
            step = jnp.where(axis == k, dy * self.pitch + dx, step)
        return jnp.where(direction & 1, -step, step)


def solve(
    excess: jax.Array, caps: jax.Array, *, limit: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Maximum flow: what remains of the excess and of the capacities, and the sink's side.

    Args:
        excess: int32 [H, W], supply of each pixel; demand where negative.
        caps: int32 [D, H, W], residual capacity by direction; 0 across the border.
        limit: the most paths to augment.

    Returns:
        Excess and capacities as given, after the flow; bool [H, W], pixels from which a pixel with
        demand left can be reached. It is a minimum cut unless the limit was hit.
    """
    directions, height, width = caps.shape
    grid = _Grid(directions, width + 2)
    trees = _plant(excess, caps)

    def body(carry):
        trees, _ = carry
        trees, found, node, direction = _grow(trees, grid)
        trees, count = _augment(trees, grid, found, node, direction)
        return _adopt(trees, grid, count), found

    trees, _ = lax.while_loop(
        lambda carry: carry[1] & (carry[0].time < limit), body, (trees, jnp.bool(True))
    )

    def inner(flat, *tail):
        return flat.reshape(height + 2, width + 2, *tail)[1:-1, 1:-1]

    caps = jnp.moveaxis(inner(trees.caps, directions), -1, 0)
    return inner(trees.excess), caps, inner(trees.link) < 0


def _plant(excess: jax.Array, caps: jax.Array) -> _Trees:
    directions = caps.shape[0]
    excess = jnp.pad(excess, 1)
    caps = jnp.pad(caps, ((0, 0), (1, 1), (1, 1)))
    # A pixel can grow where a residual edge, to or from it, leads to another tree or none.
    sign = jnp.sign(excess)
    growing = jnp.zeros(excess.shape, bool)
    for d in range(directions):
        dy, dx = STEPS[d // 2]
        shift = (-dy, -dx) if d % 2 == 0 else (dy, dx)
        there, back = jnp.roll(sign, shift, (0, 1)), jnp.roll(caps[d ^ 1], shift, (0, 1))
        growing |= (sign > 0) & (there <= 0) & (caps[d] > 0)
        growing |= (sign < 0) & (there >= 0) & (back > 0)
    growing = growing.ravel()
    place = jnp.cumsum(growing, dtype=jnp.int32)
    pixels = growing.size
    ring = 1 << pixels.bit_length()
    nodes = jnp.arange(pixels, dtype=jnp.int32)
    queue = (
        jnp.zeros(ring, jnp.int32).at[jnp.where(growing, place - 1, ring)].set(nodes, mode="drop")
    )
    zeros = jnp.zeros(pixels, jnp.int32)
    return _Trees(
        excess=excess.ravel(),
        caps=jnp.moveaxis(caps, 0, -1).ravel(),
        link=sign.ravel() * (directions + 1),
        stamp=zeros,
        depth=zeros,
        queue=queue,
        queued=growing.astype(jnp.int32),
        orphans=zeros,
        head=jnp.int32(0),
        tail=place[-1],
        time=jnp.int32(0),
    )


def _get(array: jax.Array, index: jax.Array) -> jax.Array:
    return lax.dynamic_slice(array, (index,), (1,))[0]


def _put(array: jax.Array, index: jax.Array, value: jax.Array) -> jax.Array:
    return lax.dynamic_update_slice(array, jnp.asarray(value, array.dtype)[None], (index,))


def _grow(trees: _Trees, grid: _Grid):
    """Takes free pixels into the trees until they touch.

    Returns the trees, whether they touch, and the pixel and direction where.
    """
    directions, ring = grid.directions, trees.queue.size - 1

    def body(carry):
        t, found, node, direction, done, new = carry
        node_new, link_new, stamp_new, depth_new, slot_new, enqueued = new
        link = _put(t.link, node_new, link_new)
        stamp = _put(t.stamp, node_new, stamp_new)
        depth = _put(t.depth, node_new, depth_new)
        queue = _put(t.queue, slot_new, node_new)
        queued = _put(_put(t.queued, done, 0), enqueued, 1)

        node = _get(queue, t.head & ring)
        there = node + grid.step(direction)
        mine, other = _get(link, node), _get(link, there)
        edge = jnp.where(
            mine > 0, node * directions + direction, there * directions + (direction ^ 1)
        )
        open_ = (mine != 0) & (_get(t.caps, edge) > 0)
        free = open_ & (other == 0)
        found = open_ & (mine * other < 0)
        enters = free & (_get(queued, there) == 0)
        leaves = ~found & ((direction == directions - 1) | (mine == 0))
        new = (
            jnp.where(free, there, 0),
            jnp.where(free, jnp.sign(mine) * ((direction ^ 1) + 1), 0),
            _get(stamp, node),
            _get(depth, node) + 1,
            t.tail & ring,
            jnp.where(enters, there, 0),
        )
        t = t._replace(
            link=link,
            stamp=stamp,
            depth=depth,
            queue=queue,
            queued=queued,
            head=t.head + leaves,
            tail=t.tail + enters,
        )
        following = jnp.where(leaves, 0, jnp.where(found, direction, direction + 1))
        return t, found, node, following, jnp.where(leaves, node, 0), new

    zero = jnp.int32(0)
    new = (zero, zero, zero, zero, trees.tail & ring, zero)
    carry = (trees, jnp.bool(False), zero, zero, zero, new)
    carry = lax.while_loop(lambda c: ~c[1] & (c[0].head < c[0].tail), body, carry)
    return carry[0], carry[1], carry[2], carry[3]


def _augment(trees: _Trees, grid: _Grid, found: jax.Array, node: jax.Array, direction: jax.Array):
    """Saturates the path through the edge where the trees touch; returns the number of orphans."""
    directions = grid.directions
    forward = _get(trees.link, node) > 0
    there = node + grid.step(direction)
    source, sink = jnp.where(forward, node, there), jnp.where(forward, there, node)
    across = jnp.where(forward, direction, direction ^ 1)
    edge, back = source * directions + across, sink * directions + (across ^ 1)
    bridge, bridge_back = _get(trees.caps, edge), _get(trees.caps, back)

    def look(link, node, upward):
        """The edge to the parent, along the flow and against it; the parent; whether none."""
        parent = jnp.abs(_get(link, node)) - 1
        up = node + grid.step(parent)
        down, rise = up * directions + (parent ^ 1), node * directions + parent
        return (
            jnp.where(upward, down, rise),
            jnp.where(upward, rise, down),
            up,
            parent >= directions,
        )

    def measure(carry):
        node, upward, flow, _ = carry
        edge, _, up, root = look(trees.link, node, upward)
        room = jnp.where(root, jnp.abs(_get(trees.excess, node)), _get(trees.caps, edge))
        following = jnp.where(root, sink, up)
        return following, upward & ~root, jnp.minimum(flow, room), root & ~upward

    start = (source, jnp.bool(True), bridge, ~found)
    flow = lax.while_loop(lambda c: ~c[3], measure, start)[2]

    def push(carry):
        t, node, upward, _, count, new = carry
        t = _store(t, new)
        edge, back, up, root = look(t.link, node, upward)
        excess = _get(t.excess, node)
        left = _get(t.caps, edge) - flow
        cut = jnp.where(root, jnp.abs(excess) == flow, left == 0)
        orphan = jnp.where(upward, 1, -1) * (directions + 2)
        new = (
            jnp.where(root, 0, edge),
            jnp.where(root, 0, left),
            jnp.where(root, 0, back),
            jnp.where(root, 0, _get(t.caps, back) + flow),
            jnp.where(root, node, 0),
            jnp.where(root, jnp.where(upward, excess - flow, excess + flow), 0),
            jnp.where(cut, node, 0),
            jnp.where(cut, orphan, 0),
            count,
        )
        return t, jnp.where(root, sink, up), upward & ~root, root & ~upward, count + cut, new

    zero = jnp.int32(0)
    new = (edge, bridge - flow, back, bridge_back + flow, zero, zero, zero, zero, zero)
    new = jax.tree.map(lambda x: jnp.where(found, x, 0), new)
    start = (trees, source, jnp.bool(True), ~found, zero, new)
    trees, _, _, _, count, new = lax.while_loop(lambda c: ~c[3], push, start)
    return _store(trees, new)._replace(time=trees.time + 1), count


def _store(trees: _Trees, new) -> _Trees:
    edge, left, back, room, root, excess, node, link, place = new
    return trees._replace(
        caps=_put(_put(trees.caps, edge, left), back, room),
        excess=_put(trees.excess, root, excess),
        link=_put(trees.link, node, link),
        orphans=_put(trees.orphans, place, node),
    )


def _adopt(trees: _Trees, grid: _Grid, count: jax.Array) -> _Trees:
    """Gives every orphan a parent in its tree, or sets it free."""
    directions = grid.directions
    size = trees.orphans.size

    def body(carry):
        t, first, last = carry
        node = _get(t.orphans, first % size)
        sign = jnp.sign(_get(t.link, node))

        def look(carry):
            d, candidates, children, waking = carry
            there = node + grid.step(d)
            edge = jnp.where(sign > 0, there * directions + (d ^ 1), node * directions + d)
            link = sign * _get(t.link, there)
            open_ = (link > 0) & (_get(t.caps, edge) > 0)
            bit = jnp.int32(1) << d
            candidates |= jnp.where(open_ & (link < directions + 2), bit, 0)
            waking |= jnp.where(open_ & (_get(t.queued, there) == 0), bit, 0)
            children |= jnp.where(link == (d ^ 1) + 1, bit, 0)
            return d + 1, candidates, children, waking

        zero = jnp.int32(0)
        seen = lax.while_loop(lambda c: c[0] < directions, look, (zero, zero, zero, zero))
        candidates, children, waking = seen[1], sign * seen[2], seen[3]
        t, found = _parent(t, grid, node, _Search(candidates, 0, 2**30, sign, children, waking))
        t = t._replace(
            link=_put(t.link, node, found.link),
            stamp=_put(t.stamp, node, t.time),
            depth=_put(t.depth, node, found.length + 1),
        )
        t, last = _release(t, grid, node, found, last)
        return t, first + 1, last

    return lax.while_loop(lambda c: c[1] < c[2], body, (trees, jnp.int32(0), count))[0]


def _lowest(bits: jax.Array) -> jax.Array:
    return lax.population_count((bits & -bits) - 1)


class _Search(NamedTuple):
    """An orphan's search for a parent. Sets of directions are bits of an int32.

    candidates: directions not yet looked at; link, length: of the best found, link 0 for none.
    children: the pixels to orphan if none is found, the number's sign is the tree's; waking: those
        that may then grow.
    All that is read before the search passes through its loop: were it computed after, XLA would
    read arrays that are written by then, and copy them.
    """

    candidates: jax.Array
    link: jax.Array
    length: jax.Array
    sign: jax.Array
    children: jax.Array
    waking: jax.Array


def _parent(trees: _Trees, grid: _Grid, node: jax.Array, search: _Search):
    """Looks for the candidate nearest to a root."""
    directions = grid.directions

    def body(carry):
        t, s = carry
        direction = _lowest(s.candidates)
        start = node + grid.step(direction)

        def walk(carry):
            stamp, depth, at, value, node, length, top, _ = carry
            stamp, depth = _put(stamp, at, t.time), _put(depth, at, value)
            link = jnp.abs(_get(t.link, node))
            known = _get(stamp, node) == t.time
            marking = top > 0
            stop = known | (link > directions)
            up = node + grid.step(link - 1)
            here = jnp.where(known, _get(depth, node), 1)
            rooted = known | (link == directions + 1)
            at = jnp.where(marking, node, 0)
            turn = ~marking & stop & rooted
            step = jnp.where(marking, -1, here)
            following = jnp.where(turn, start, up)
            done = jnp.where(marking, node == top, stop & ~rooted)
            top = jnp.where(turn, node, top)
            return stamp, depth, at, length, following, length + step, top, done

        zero = jnp.int32(0)
        walked = (t.stamp, t.depth, zero, zero, start, zero, zero, jnp.bool(False))
        stamp, depth, at, value, _, _, top, _ = lax.while_loop(lambda c: ~c[-1], walk, walked)
        t = t._replace(stamp=_put(stamp, at, t.time), depth=_put(depth, at, value))
        rooted, length = top > 0, _get(t.depth, start)
        better = rooted & (length < s.length)
        s = s._replace(
            candidates=s.candidates & (s.candidates - 1),
            link=jnp.where(better, s.sign * (direction + 1), s.link),
            length=jnp.where(better, length, s.length),
            children=jnp.where(better, 0, s.children),
            waking=jnp.where(better, 0, s.waking),
        )
        return t, s

    search = jax.tree.map(jnp.int32, search)
    return lax.while_loop(lambda c: c[1].candidates != 0, body, (trees, search))


def _release(
    trees: _Trees, grid: _Grid, node: jax.Array, found: _Search, last: jax.Array
) -> tuple[_Trees, jax.Array]:
    """Orphans the children of a pixel that became free and lets its neighbours grow again."""
    ring = trees.queue.size - 1
    size = trees.orphans.size
    children, waking = jnp.abs(found.children), found.waking
    orphan = jnp.sign(found.children) * (grid.directions + 2)

    def body(carry):
        t, left, last = carry
        direction = _lowest(left)
        there = node + grid.step(direction)
        child, wakes = (children >> direction) & 1 == 1, (waking >> direction) & 1 == 1
        at = jnp.where(child, there, 0)
        t = t._replace(
            link=_put(t.link, at, jnp.where(child, orphan, 0)),
            orphans=_put(t.orphans, last % size, there),
            queue=_put(t.queue, t.tail & ring, there),
            queued=_put(t.queued, jnp.where(wakes, there, 0), 1),
            tail=t.tail + wakes,
        )
        return t, left & (left - 1), last + child

    start = (trees, children | waking, last)
    trees, _, last = lax.while_loop(lambda c: c[1] != 0, body, start)
    return trees, last
