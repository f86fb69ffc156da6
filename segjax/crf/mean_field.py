"""Mean field inference in the fully connected CRF.

Krähenbühl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS
2011, algorithm 1: every pixel hears what all others expect, under every kernel, and all change
their minds at once. As in the publication's code, a pixel also hears itself.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from segjax.data.spec import VOID

_LANES = 8  # channels are filled up to a multiple: rows of the tables are then whole vectors


def infer(
    logits: jax.Array,
    filters: Sequence[Callable[[jax.Array], jax.Array]],
    compatibilities: Sequence[jax.Array | float],
    *,
    iterations: int,
    relaxation: float = 1.0,
) -> jax.Array:
    """Marginals after a number of iterations, as logits: float [N, K] -> [N, K].

    All of it can be differentiated, by logits, compatibilities and filters; the way back computes
    every iteration again, so that only [N, K] of each is kept.

    Args:
        logits: the unary term, negated: log-probabilities up to a constant of each pixel.
        filters: a kernel each: messages [N, C] -> [N, C], see `kernels.Filter`.
        compatibilities: of each kernel. A number w: the Potts model, w for every other label. [K]:
            the energy of meeting the same label. [K, K]: the energy of label (row) with label.
            Whoever wants it symmetric passes it symmetric.
        iterations: how many.
        relaxation: share of the new marginals that is taken in an iteration, above 0, at most 1.

    Returns:
        logits, whose softmax are the marginals.
    """
    classes = logits.shape[1]
    fill = -classes % _LANES
    unary = jnp.pad(logits, ((0, 0), (0, fill)), constant_values=-jnp.inf)
    costs = [_cost(c, fill, logits.dtype) for c in compatibilities]

    @jax.checkpoint
    def iteration(carry, _):
        energy, q = carry
        new = jax.nn.softmax(unary - energy, axis=-1)
        q = new if relaxation == 1 else (1 - relaxation) * q + relaxation * new
        energy = sum(cost(send(q)) for send, cost in zip(filters, costs, strict=True))
        return (energy, None if relaxation == 1 else q), None

    nothing = jnp.zeros_like(unary)
    first = None if relaxation == 1 else jax.nn.softmax(unary, axis=-1)
    (energy, q), _ = jax.lax.scan(iteration, (nothing, first), None, length=iterations)
    scores = unary - energy
    if relaxation != 1:
        mixed = (1 - relaxation) * q + relaxation * jax.nn.softmax(scores, axis=-1)
        scores = jnp.log(jnp.maximum(mixed, jnp.finfo(mixed.dtype).tiny))
    return scores[:, :classes]


def _cost(compatibility: jax.Array | float, fill: int, dtype) -> Callable:
    """Messages [N, C] -> what they cost each label."""
    c = jnp.asarray(compatibility, dtype)
    if c.ndim == 0:
        # All messages to a pixel sum to the same for every label: rewarding one is punishing the
        # others.
        return lambda message: -c * message
    c = jnp.pad(c, ((0, fill),) * c.ndim)
    if c.ndim == 1:
        return lambda message: c * message
    return lambda message: jnp.matmul(message, c.T, precision="highest")


def logits_of_probabilities(probabilities: jax.Array, clip: float = 1e-5) -> jax.Array:
    """Log-probabilities, no lower than that of `clip`, as pydensecrf has them."""
    return jnp.log(jnp.clip(probabilities, clip, 1.0))


def logits_of_labels(label: jax.Array, num_classes: int, certainty: float) -> jax.Array:
    """What hard labels say, of annotations by hand (the publication's demonstration).

    Args:
        label: uint8 [...], classes or VOID, whose pixels have no unary term.
        num_classes: K, 2 or more.
        certainty: probability that a label is right; the other labels share the rest.

    Returns:
        float32 [..., K].
    """
    same = label[..., None] == jnp.arange(num_classes, dtype=label.dtype)
    other = (1 - certainty) / (num_classes - 1)
    given = jnp.where(same, jnp.log(certainty), jnp.log(other)).astype(jnp.float32)
    return jnp.where((label == VOID)[..., None], 0.0, given)
