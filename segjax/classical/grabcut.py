"""GrabCut: the foreground within a box (Rother, Kolmogorov, Blake, 2004)."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from segjax import contracts
from segjax.classical import batches, gmm, graph_cut
from segjax.errors import InputError

_BITS = 27  # of the sum of the capacities around a pixel
_EFFORT = 64  # of every cut; see `graph_cut.min_cut`


def grabcut(
    image: jax.Array,
    box: jax.Array,
    *,
    components: int = 5,
    iterations: int = 5,
    gamma: float = 50.0,
    seeds: jax.Array | None = None,
) -> jax.Array:
    """The foreground in a box: image [H, W, 3], int [4] -> int32 [H, W], 1 for foreground.

    Gaussian mixtures are fitted to the colours inside and outside the box. Then each iteration
    learns the mixtures, assigns pixels to components and computes a minimum cut (8 neighbours). A
    cut starts from the flow of the previous one, because only the unaries change.

    Args:
        image: see `contracts.image`.
        box: top, left, bottom, right; half-open, clipped to the image. Pixels outside are
            background, so an empty box gives only background. With a box of the whole image no
            background is known, and its colours are assumed to be uniform at first.
        components: Gaussians per mixture, 1 to 32.
        iterations: 1 or more.
        gamma: weight of the edges; see `graph_cut.contrast`.
        seeds: int [H, W], 0 unknown, 1 background, 2 foreground; pixels that keep their label.
            Foreground seeds outside the box are background.

    Raises:
        InputError: if an option is out of its range or an array is not of its kind.
    """
    gmm.check_components(components)
    if iterations < 1:
        raise InputError(f"iterations: got {iterations}; allowed: 1 or more.")
    if not gamma > 0 or math.isinf(gamma):
        raise InputError(f"gamma: got {gamma}; allowed: numbers > 0.")
    image, box = contracts.image(image), contracts.as_int32(contracts.whole(box, "box", "[4]"))
    if seeds is None:
        seeds = jnp.zeros(image.shape[:2], jnp.int32)
    else:
        seeds = graph_cut.checked_seeds(seeds, image)
    segment = functools.partial(_segment, components=components, iterations=iterations, gamma=gamma)
    return batches.one_by_one(segment, image, box, seeds)


def _segment(image, box, seeds, *, components, iterations, gamma):
    rows, columns = (jnp.arange(size) for size in image.shape[:2])
    inside = ((rows >= box[0]) & (rows < box[2]))[:, None]
    inside &= (columns >= box[1]) & (columns < box[3])
    inside &= seeds != graph_cut.BACKGROUND
    kept = inside & (seeds == graph_cut.FOREGROUND)

    colors = gmm.planes(image)
    # The capacities around a pixel are at most gamma * (4 + 4 / sqrt(2)).
    scale = 2.0 ** (_BITS - math.frexp(7 * gamma)[1])
    edges = graph_cut.contrast(image, smoothness=gamma, sigma=None, connectivity=8)
    caps = graph_cut.both_ways(jnp.round(edges * scale).astype(jnp.int32))
    most = jnp.sum(caps, 0) + 1

    def body(_, carry):
        labels, owners, supply, excess, caps = carry
        mixtures = gmm.learn(colors, labels, owners, components=components)
        density, best = gmm.score(mixtures, colors)
        next_supply = jnp.clip((density[0] - density[1]) * scale, -(2.0**28), 2.0**28)
        next_supply = jnp.clip(jnp.round(next_supply).astype(jnp.int32), -most, most)
        next_supply = jnp.where(kept, -most, jnp.where(inside, next_supply, most))
        excess, caps, sink = graph_cut.flow(excess + next_supply - supply, caps, effort=_EFFORT)
        labels = sink.astype(jnp.int32)
        return labels, jnp.where(sink, best[1], best[0]), next_supply, excess, caps

    labels = inside.astype(jnp.int32)
    owners = gmm.split(colors, labels, components=components)
    zero = jnp.zeros(labels.shape, jnp.int32)
    return lax.fori_loop(0, iterations, body, (labels, owners, zero, zero, caps))[0]
