"""Gaussian mixtures over colours, one for each group of pixels, all fitted at once.

As in "GrabCut" (Rother, Kolmogorov, Blake, 2004), section 3.2: covariances are full and every pixel
belongs to one component. The first assignment splits along principal axes ("Color Quantization of
Images", Orchard, Bouman, 1991), without random numbers.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from segjax.errors import InputError

GROUPS = 2
_CENTRE = 128.0  # subtracted from colours, so that second moments cancel less
_VARIANCE = 1 / 12  # variance of rounding to 8 bits, added to every variance
_ROUNDS = 4  # rounds of learning and assigning after the splits


class Mixtures(NamedTuple):
    """G mixtures of K Gaussians.

    log_weights: float32 [G, K], including the normalisation of the Gaussians; means: [G, K, 3];
        whitening: [G, K, 3, 3], lower triangular, the inverse of the covariance's Cholesky factor.
    """

    log_weights: jax.Array
    means: jax.Array
    whitening: jax.Array


class _Moments(NamedTuple):
    """Number of pixels [G, K], mean [G, K, 3] and covariance [G, K, 3, 3] of every component."""

    number: jax.Array
    mean: jax.Array
    covariance: jax.Array


def check_components(components: int) -> None:
    """Raises InputError unless `components` is an allowed number of Gaussians, 1 to 32."""
    if not 1 <= components <= 32:
        raise InputError(f"components: got {components}; allowed: 1 to 32.")


def planes(image: jax.Array) -> jax.Array:
    """Colour planes centred about 0: image [H, W, 3] -> float32 [3, H, W]."""
    return jnp.moveaxis(image, -1, 0).astype(jnp.float32) - _CENTRE


def split(colors: jax.Array, groups: jax.Array, *, components: int) -> jax.Array:
    """The first component of each pixel: [3, H, W], int32 [H, W] -> int32 [H, W].

    The component with the largest scatter along its principal axis is split at its mean until there
    are `components`; then the components are learnt and the pixels reassigned a few times.

    Args:
        colors: result of `planes`.
        groups: 0 or 1; pixels with other values belong to no group.
        components: K.
    """
    owners = jnp.zeros_like(groups)
    for new in range(1, components):
        moments = _moments(colors, groups, owners, new)
        scatter = moments.covariance * moments.number[..., None, None]
        axis, spread = _principal(scatter)
        parent = jnp.argmax(spread, -1)
        for group in range(GROUPS):
            chosen = parent[group]
            mean, direction = moments.mean[group, chosen], axis[group, chosen]
            offset = sum((colors[c] - mean[c]) * direction[c] for c in range(3))
            leaves = (groups == group) & (owners == chosen) & (offset > 0)
            owners = jnp.where(leaves, new, owners)

    def improve(_, owners):
        _, best = score(learn(colors, groups, owners, components=components), colors)
        return jnp.where(groups == 1, best[1], best[0])

    return jax.lax.fori_loop(0, _ROUNDS, improve, owners)


def learn(colors: jax.Array, groups: jax.Array, owners: jax.Array, *, components: int) -> Mixtures:
    """Mixtures fitted to the pixels of each component; a group without pixels becomes uniform."""
    number, mean, covariance = _moments(colors, groups, owners, components)
    a, b, c = (covariance[..., i, i] + _VARIANCE for i in range(3))
    # The Cholesky factor and its inverse, entry by entry; 3 x 3 needs no solver.
    l00 = jnp.sqrt(a)
    l10, l20 = covariance[..., 1, 0] / l00, covariance[..., 2, 0] / l00
    l11 = jnp.sqrt(jnp.maximum(b - l10 * l10, _VARIANCE))
    l21 = (covariance[..., 2, 1] - l20 * l10) / l11
    l22 = jnp.sqrt(jnp.maximum(c - l20 * l20 - l21 * l21, _VARIANCE))
    i00, i11, i22 = 1 / l00, 1 / l11, 1 / l22
    i10, i21 = -l10 * i00 * i11, -l21 * i11 * i22
    i20 = -(l20 * i00 + l21 * i10) * i22
    zero = jnp.zeros_like(i00)
    rows = [jnp.stack(row, -1) for row in ((i00, zero, zero), (i10, i11, zero), (i20, i21, i22))]
    total = jnp.sum(number, -1, keepdims=True)
    log_weights = jnp.log(jnp.maximum(number, 1e-6) / jnp.maximum(total, 1))
    log_weights += jnp.log(i00 * i11 * i22) - 1.5 * math.log(2 * math.pi)
    return Mixtures(
        jnp.where(total > 0, log_weights, -math.log(256.0**3 * components)),
        mean,
        jnp.where(total[..., None, None] > 0, jnp.stack(rows, -2), 0),
    )


def score(mixtures: Mixtures, colors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log density of each mixture at every pixel, and its likeliest component.

    [3, H, W] -> float32 [G, H, W], int32 [G, H, W].
    """
    densities, owners = [], []
    for log_weights, means, whitening in zip(*mixtures, strict=True):
        logs = []
        for k in range(len(log_weights)):
            x, y, z = (colors[c] - means[k, c] for c in range(3))
            w = whitening[k]
            u = w[0, 0] * x
            v = w[1, 0] * x + w[1, 1] * y
            t = w[2, 0] * x + w[2, 1] * y + w[2, 2] * z
            logs.append(log_weights[k] - 0.5 * (u * u + v * v + t * t))
        best, owner = logs[0], jnp.zeros(logs[0].shape, jnp.int32)
        for k, log in enumerate(logs[1:], 1):
            owner = jnp.where(log > best, k, owner)
            best = jnp.maximum(best, log)
        densities.append(best + jnp.log(sum(jnp.exp(log - best) for log in logs)))
        owners.append(owner)
    return jnp.stack(densities), jnp.stack(owners)


def _moments(colors: jax.Array, groups: jax.Array, owners: jax.Array, components: int) -> _Moments:
    """The moments of all components, from one matrix product."""
    x, y, z = colors
    ones = jnp.ones_like(x)
    features = jnp.stack([ones, x, y, z, x * x, y * x, y * y, z * x, z * y, z * z])
    places = jnp.arange(GROUPS * components)
    chosen = jnp.where((groups >= 0) & (groups < GROUPS), groups * components + owners, -1)
    members = (chosen == places[:, None, None]).astype(jnp.float32)
    sums = jnp.einsum("khw,fhw->kf", members, features, precision="highest")
    sums = sums.reshape(GROUPS, components, 10)
    number = sums[..., 0]
    sums = sums / jnp.maximum(number, 1)[..., None]
    mean = sums[..., 1:4]
    xx, yx, yy, zx, zy, zz = (sums[..., 4 + i] for i in range(6))
    rows = [jnp.stack(row, -1) for row in ((xx, yx, zx), (yx, yy, zy), (zx, zy, zz))]
    covariance = jnp.stack(rows, -2) - mean[..., :, None] * mean[..., None, :]
    return _Moments(number, mean, covariance)


def _principal(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Leading eigenvector and eigenvalue of symmetric matrices: [..., 3, 3] -> [..., 3], [...]."""

    def normalised(m):
        trace = jnp.trace(m, axis1=-2, axis2=-1)[..., None, None]
        return m / jnp.maximum(trace, 1e-30)

    power = normalised(matrix)
    for _ in range(6):  # the 64th power, in which other eigenvectors no longer matter for a split
        power = normalised(jnp.einsum("...ij,...jk->...ik", power, power, precision="highest"))
    norms = jnp.sum(power * power, -2)
    column = jnp.argmax(norms, -1)[..., None, None]
    axis = jnp.take_along_axis(power, column, -1)[..., 0]
    axis = axis / jnp.sqrt(jnp.maximum(jnp.sum(axis * axis, -1, keepdims=True), 1e-30))
    along = jnp.einsum("...i,...ij,...j->...", axis, matrix, axis, precision="highest")
    return axis, along
