"""Making every region one connected piece."""

import jax
import jax.numpy as jnp


def connected(labels: jax.Array, regions: int, *, least: int = 1) -> jax.Array:
    """Keeps of every region the piece around its middle, and gives away the rest.

    The piece is flooded from the region's pixel nearest to its centroid. What is not reached, and
    regions whose piece is too small, adopts a neighbour's label, wave after wave from the border
    inwards. So each region is connected by construction.

    Args:
        labels: int32 [H, W], or of a volume, 0 to regions - 1.
        regions: capacity.
        least: pixels of a piece that is kept; the largest is kept in any case.

    Returns:
        int32, the same shape; some numbers may be missing.
    """
    linked = [
        (step, (_seen(labels, step, -1) == labels).astype(jnp.uint8)) for step in _sides(labels)
    ]
    reached = _flood(_seeds(labels, regions), linked)
    size = jnp.zeros(regions, jnp.int32).at[labels.ravel()].add(reached.ravel().astype(jnp.int32))
    kept = (size >= least) | (jnp.arange(regions) == jnp.argmax(size))
    labels = jnp.where((reached > 0) & kept[labels], labels, -1)

    def adopt(labels):
        found = labels
        for step in _sides(labels):
            found = jnp.where(found < 0, _seen(labels, step, -1), found)
        return found

    return jax.lax.while_loop(lambda labels: jnp.any(labels < 0), adopt, labels)


def _seeds(labels: jax.Array, regions: int) -> jax.Array:
    """The pixel of every region that is nearest to its centroid: uint8, 1 there."""
    flat = labels.ravel()
    members = jnp.zeros(regions).at[flat].add(1)
    apart = 0
    for axis, length in enumerate(labels.shape):
        place = jax.lax.broadcasted_iota(jnp.float32, labels.shape, axis) - length / 2
        middle = jnp.zeros(regions).at[flat].add(place.ravel()) / jnp.maximum(members, 1)
        apart = apart + (place - middle[labels]) ** 2
    nearest = jnp.full(regions, jnp.inf).at[flat].min(apart.ravel())
    number = jnp.arange(flat.size, dtype=jnp.int32)
    number = jnp.where((apart == nearest[labels]).ravel(), number, flat.size)
    first = jnp.full(regions, flat.size, jnp.int32).at[flat].min(number)
    seeds = jnp.zeros(flat.size, jnp.uint8).at[first].set(1, mode="drop")
    return seeds.reshape(labels.shape)


def _flood(seeds: jax.Array, linked) -> jax.Array:
    """What can be reached from the seeds along the links."""

    def more(carry):
        return carry[1]

    def wave(carry):
        reached, _ = carry
        new = reached
        for step, link in linked:
            new = new | (link & _seen(reached, step, 0))
        return new, jnp.any(new != reached)

    return jax.lax.while_loop(more, wave, (seeds, jnp.array(True)))[0]


def _sides(labels: jax.Array) -> list[tuple[int, ...]]:
    """Steps to the neighbours along every axis."""
    steps = []
    for axis in range(labels.ndim):
        for way in (-1, 1):
            steps.append(tuple(way if a == axis else 0 for a in range(labels.ndim)))
    return steps


def _seen(values: jax.Array, step: tuple[int, ...], fill: int) -> jax.Array:
    """values[p + step], `fill` outside."""
    # A negative amount cuts off.
    return jax.lax.pad(values, jnp.array(fill, values.dtype), [(-s, s, 0) for s in step])
