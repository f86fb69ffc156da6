"""The smallest eigenpairs of a symmetric operator, by Chebyshev-filtered subspace iteration.

Zhou, Saad, Tiago and Chelikowsky, "Self-consistent-field calculations using Chebyshev-filtered
subspace iteration", 2006. The method needs no factorisation, only products of the operator with
several vectors at a time, which are fast on accelerators.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_SPARE = 4
"""Number of additional vectors, because the last vectors of a subspace converge slowly."""
_DEPENDENT = 1e-5
"""Share of a unit vector's squared length that rounding may cause."""
_GROWTH = 1e4
"""Largest gain of one vector over another in a filter; float32 keeps both."""


def block(count: int, size: int) -> int:
    """Number of vectors to iterate for `count` eigenvectors of a graph with `size` nodes.

    A few more than `count`, rounded up to whole registers of eight, but at most `size`.
    """
    return min(-(-(count + _SPARE) // 8) * 8, size)


def smallest(
    apply: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    *,
    wanted: int,
    bound: jax.Array | float,
    degree: int = 20,
    rounds: int = 3,
    tolerance: float = 1e-3,
) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues and eigenvectors at the lower end of the spectrum.

    Args:
        apply: a symmetric linear map of the columns of float32 [N, M] with its spectrum in
            [0, bound].
        start: float32 [N, M], linearly independent columns; M is a few more than `wanted`.
        wanted: number of pairs whose residuals decide when to stop.
        bound: upper bound of the spectrum.
        degree: products with the operator per round.
        rounds: largest number of rounds.
        tolerance: residual norm at which a pair is accepted; the error of an eigenvalue is at most
            this norm, and at most its square over the gap to the next eigenvalue.

    Returns:
        float32 [M], ascending, and orthonormal float32 [N, M]; dependent columns are zero and come
        last.
    """

    def more(carry):
        done, *_, residual = carry
        return (done < rounds) & (residual > tolerance)

    def body(carry):
        done, values, vectors, low, _ = carry
        filtered = _filter(apply, vectors, low, bound, degree)
        return done + 1, *_ritz(apply, filtered, wanted, bound)

    first = _ritz(apply, start, wanted, bound)
    _, values, vectors, *_ = jax.lax.while_loop(more, body, (0, *first))
    return values, vectors


def _filter(apply, x, low, bound, degree):
    """Applies the Chebyshev polynomial that is within +-1 on [low, bound] and grows below it."""
    # An interval of width 0 has no polynomial; then the block already holds the whole spectrum.
    half = jnp.maximum(0.5 * (bound - low), 1e-3 * bound)
    middle = bound - half
    lift = jnp.arccosh(jnp.maximum(middle / half, 1 + 1e-6))
    steps = jnp.clip(jnp.arccosh(_GROWTH) / lift, 1, degree).astype(jnp.int32)

    def scaled(x):
        return (apply(x) - middle * x) / half

    def body(_, pair):
        before, now = pair
        return now, 2 * scaled(now) - before

    return jax.lax.fori_loop(1, steps, body, (x, scaled(x)))[1]


def _ritz(apply, x, wanted, bound):
    """Rayleigh-Ritz: eigenpairs in the span of x, the largest value and the worst residual.

    Directions that differ from the others only by rounding are dropped: their columns become zero
    and their values twice the bound.
    """
    x = x / jnp.maximum(jnp.sqrt(jnp.sum(x * x, axis=0)), 1e-30)
    image = apply(x)
    lengths, axes = jnp.linalg.eigh(product(x.T, x))
    kept = lengths > _DEPENDENT
    whiten = jnp.where(kept, axes / jnp.sqrt(jnp.where(kept, lengths, 1)), 0)
    energy = product(product(whiten.T, product(x.T, image)), whiten)
    energy = 0.5 * (energy + energy.T) + jnp.diag(jnp.where(kept, 0, 2 * bound))
    values, turn = jnp.linalg.eigh(energy)
    turn = product(whiten, turn)
    x, image = product(x, turn), product(image, turn)
    residual = jnp.sqrt(jnp.sum((image - values * x) ** 2, axis=0))
    low = jnp.max(jnp.where(values < 1.5 * bound, values, 0))
    return values, x, low, jnp.max(residual[:wanted])


def product(x: jax.Array, y: jax.Array) -> jax.Array:
    """x @ y in full float32; accelerators round more by default."""
    return jnp.matmul(x, y, precision="highest")
