"""Mean field inference in the fully connected CRF.

Krähenbühl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS
2011, algorithm 1: every pixel receives the marginals of all others, weighted by every kernel, and
all pixels update at once. As in the code of the publication, a pixel also receives its own.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from segjax import contracts, strips
from segjax.data.spec import VOID
from segjax.errors import InputError

_LANES = 8  # channels are padded to a multiple of this, so that table rows are whole vectors


def infer(
    logits: jax.Array,
    filters: Sequence[Callable[[jax.Array], jax.Array]],
    compatibilities: Sequence[jax.Array | float],
    *,
    iterations: int,
    relaxation: float = 1.0,
) -> jax.Array:
    """The marginals after a number of iterations, as logits: float [N, K] -> [N, K].

    The result can be differentiated by logits, compatibilities and filters. The backward pass
    recomputes every iteration, so that only [N, K] of each is kept.

    Args:
        logits: the negative unary term: log-probabilities up to a constant for each pixel.
        filters: one for each kernel: values [N, C] -> messages [N, C], see `kernels.Filter`.
        compatibilities: one for each kernel. A number w: the Potts model, an energy of w for every
            pair of different labels. [K]: the energy of every pair of equal labels. [K, K]: the
            energy of a label (row) with every label (column); it need not be symmetric.
        iterations: number of iterations.
        relaxation: share of the new marginals in an update, above 0 and at most 1.

    Returns:
        float [N, K], logits whose softmax is the marginals.

    Raises:
        InputError: if logits or a compatibility have another type or shape.
    """
    contracts.scores(contracts.floats(logits, "logits", "[N, K]"), "logits", "[N, K]")
    classes = logits.shape[1]
    for each in compatibilities:
        form = f"[] or [{classes}] or [{classes}, {classes}]"
        contracts.real(each, "compatibility", form)
    fill = -classes % _LANES
    unary = jnp.pad(logits, ((0, 0), (0, fill)), constant_values=-jnp.inf)
    costs = [_cost(c, fill, logits.dtype) for c in compatibilities]

    @jax.checkpoint
    def iteration(carry, _):
        energy, q = carry
        new = jax.nn.softmax(unary - energy, axis=-1)
        q = new if relaxation == 1 else (1 - relaxation) * q + relaxation * new
        sent = strips.split(q, 1)  # pixels are summed channel by channel
        energy = sum(cost(send(sent)) for send, cost in zip(filters, costs, strict=True))
        energy = strips.split(energy, 0)
        return (energy, None if relaxation == 1 else q), None

    no_energy = jnp.zeros_like(unary)
    first = None if relaxation == 1 else jax.nn.softmax(unary, axis=-1)
    (energy, q), _ = jax.lax.scan(iteration, (no_energy, first), None, length=iterations)
    scores = unary - energy
    if q is not None:  # the relaxation is not 1
        mixed = (1 - relaxation) * q + relaxation * jax.nn.softmax(scores, axis=-1)
        scores = jnp.log(jnp.maximum(mixed, jnp.finfo(mixed.dtype).tiny))
    return scores[:, :classes]


def _cost(compatibility: jax.Array | float, fill: int, dtype) -> Callable:
    """The function from messages [N, C] to the energy of each label, [N, C]."""
    c = jnp.asarray(compatibility, dtype)
    if c.ndim == 0:
        # Messages to a pixel sum to a constant S over labels: the energy w (S - message) drops S.
        return lambda message: -c * message
    c = jnp.pad(c, ((0, fill),) * c.ndim)
    if c.ndim == 1:
        return lambda message: c * message
    return lambda message: jnp.matmul(message, c.T, precision="highest")


def logits_of_probabilities(probabilities: jax.Array, clip: float = 1e-5) -> jax.Array:
    """Log-probabilities, none of them below log `clip`, as in pydensecrf: float [...] -> [...].

    Raises:
        InputError: if they are no floats, or known and not of 0 to 1.
    """
    probabilities = contracts.probabilities(probabilities, "probabilities", "[...]")
    return jnp.log(jnp.clip(probabilities, clip, 1.0))


def logits_of_labels(label: jax.Array, num_classes: int, certainty: float) -> jax.Array:
    """Logits of hard labels, such as annotations by hand (the publication's demonstration).

    Args:
        label: int [...], classes or VOID. Pixels of VOID get zeros: no unary term.
        num_classes: K, 2 or more.
        certainty: probability that a label is right; the other labels share the rest equally.

    Returns:
        float32 [..., K].

    Raises:
        InputError: if a label is no integer, or known and neither a class nor VOID, or if there are
            fewer than two classes.
    """
    if num_classes < 2:
        raise InputError(f"num_classes: got {num_classes}; allowed: 2 or more.")
    label = contracts.integers(label, "label", "[...]", least=0, most=max(num_classes - 1, VOID))
    values = contracts.known(label)
    if values is not None and ((values >= num_classes) & (values != VOID)).any():
        odd = values[(values >= num_classes) & (values != VOID)][0]
        contracts.refuse("label", odd, f"0 to {num_classes - 1}, and {VOID} for none")
    same = label[..., None] == jnp.arange(num_classes)
    other = (1 - certainty) / (num_classes - 1)
    given = jnp.where(same, jnp.log(certainty), jnp.log(other)).astype(jnp.float32)
    return jnp.where((label == VOID)[..., None], 0.0, given)
