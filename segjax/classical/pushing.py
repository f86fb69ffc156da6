"""Maximum flow on a pixel grid by pushing and relabelling all pixels at once.

The synchronous form of "A New Approach to the Maximum-Flow Problem" (Goldberg, Tarjan, 1988).
Heights are lower bounds of the distance to a pixel that can still drain excess. Excess moves to
neighbours that are one lower. Every few sweeps the heights are set to the true distances (global
relabelling), which also excludes pixels that can no longer reach a drain.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from segjax.classical import augmenting

_SWEEPS = 32  # between two global relabellings


def solve(
    excess: jax.Array, caps: jax.Array, *, limit: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Maximum flow, with the arguments and results of `augmenting.solve`.

    Args:
        excess: int32 [H, W], supply of each pixel; demand if negative.
        caps: int32 [D, H, W], residual capacity by direction.
        limit: largest number of sweeps.

    Returns:
        Excess and capacities after the flow, and bool [H, W], the pixels that can reach a pixel
        with remaining demand.
    """
    far = excess.size + 1

    def flowing(carry):
        excess, _, heights, sweeps = carry
        return jnp.any((excess > 0) & (heights < far)) & (sweeps < limit)

    def body(carry):
        excess, caps, heights, sweeps = carry
        excess, caps, _ = lax.fori_loop(
            0, _SWEEPS, lambda _, state: _sweep(state, far), (excess, caps, heights)
        )
        return excess, caps, _distances(excess, caps, far), sweeps + _SWEEPS

    start = (excess, caps, _distances(excess, caps, far), jnp.int32(0))
    excess, caps, heights, _ = lax.while_loop(flowing, body, start)
    return excess, caps, heights < far


def neighbor(x: jax.Array, direction: int, outside: int) -> jax.Array:
    """The value of every pixel's neighbour: [H, W] -> [H, W]; `outside` beyond the border."""
    dy, dx = augmenting.STEPS[direction // 2]
    if direction % 2:
        dy, dx = -dy, -dx
    height, width = x.shape
    x = jnp.pad(x, 1, constant_values=outside)
    return x[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]


def _sweep(state, far):
    """Pushes excess along every direction in turn, then relabels the pixels with excess."""
    excess, caps, heights = state
    caps = list(caps)
    for d in range(len(caps)):
        downhill = heights == neighbor(heights, d, far) + 1
        flow = jnp.where(downhill, jnp.clip(excess, 0, caps[d]), 0)
        arriving = neighbor(flow, d ^ 1, 0)
        excess = excess - flow + arriving
        caps[d] = caps[d] - flow
        caps[d ^ 1] = caps[d ^ 1] + arriving
    lowest = functools.reduce(jnp.minimum, _reached(caps, heights, far))
    heights = jnp.where(excess > 0, jnp.minimum(lowest + 1, far), heights)
    return excess, jnp.stack(caps), heights


def _reached(caps, heights, far):
    """Heights of the neighbours behind open edges, by direction; `far` behind closed ones."""
    return [jnp.where(cap > 0, neighbor(heights, d, far), far) for d, cap in enumerate(caps)]


def _distances(excess: jax.Array, caps: jax.Array, far: int) -> jax.Array:
    """Steps along open edges to the nearest pixel with demand; `far` if none can be reached."""

    def spread(carry):
        old, _ = carry
        new = functools.reduce(jnp.minimum, _reached(caps, old + 1, far), old)
        return new, jnp.any(new != old)

    start = (jnp.where(excess < 0, 0, far), jnp.bool(True))
    return lax.while_loop(lambda carry: carry[1], spread, start)[0]
