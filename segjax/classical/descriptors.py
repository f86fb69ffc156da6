"""Descriptors of pixels for clustering: colour, position and texture."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from segjax import arrays, contracts
from segjax.classical import barriers, color
from segjax.errors import InputError

KINDS = ("rgb", "lab", "lab_xy", "texture")
POINTWISE = KINDS[:3]
"""Kinds that need only the pixel itself, not its neighbours."""

_SCALES = (1.0, 2.0)  # standard deviations of the derivatives in pixels
_ORIENTATIONS = 4
_REACH = 3  # extent of a filter to each side in standard deviations
_POOLING = 2  # width of the smoothing of the energy, relative to its scale


def describe_pixels(
    image: jax.Array, kind: str = "lab", *, position: float = 50.0, texture: float = 1.0
) -> jax.Array:
    """The descriptor of every pixel: image [H, W, 3] -> float32 [F, H, W].

    Channels come first, which makes all further steps several times faster on a CPU.

    Args:
        image: see `contracts.image`.
        kind: "rgb" (0 .. 255), "lab" (CIELAB), "lab_xy" (CIELAB, y, x) or "texture" (CIELAB and
            the rows of `filter_energy`).
        position: length of the image's longer side in CIELAB units, for "lab_xy".
        texture: weight of the filters' energy, whose unit is that of L, for "texture".

    Raises:
        InputError: for another kind, or an array that is no image.
    """
    check(kind)
    image = contracts.image(image)
    height, width = image.shape[:2]
    if kind == "texture":
        lab = jnp.stack(color.image_planes(image))
        return jnp.concatenate([lab, texture * filter_energy(lab[0])])
    rows = jax.lax.broadcasted_iota(jnp.float32, (height, width), 0)
    columns = jax.lax.broadcasted_iota(jnp.float32, (height, width), 1)
    return describe_points(image, rows, columns, kind, scale=position / max(height, width))


def describe_points(
    colors: jax.Array, rows: jax.Array, columns: jax.Array, kind: str, *, scale: float
) -> jax.Array:
    """The descriptors of any set of pixels, for a kind in POINTWISE.

    Args:
        colors: [A, B, 3], pixels of an image as `contracts.image` gives it.
        rows, columns: float32 [A, B], positions in the image in pixels.
        kind: one of POINTWISE.
        scale: CIELAB units per pixel, for "lab_xy".

    Returns:
        float32 [F, A, B].

    Raises:
        InputError: for another kind.
    """
    check(kind, POINTWISE)
    if kind == "rgb":
        return jnp.stack([colors[..., channel].astype(jnp.float32) for channel in range(3)])
    place = (scale * rows, scale * columns) if kind == "lab_xy" else ()
    return jnp.stack([*color.image_planes(colors), *place])


def count(kind: str) -> int:
    """F, the number of channels of a kind."""
    check(kind)
    filters = (_ORIENTATIONS + 1) * len(_SCALES)
    return 3 + {"lab_xy": 2, "texture": filters}.get(kind, 0)


def check(kind: str, allowed: tuple[str, ...] = KINDS) -> None:
    """Raises InputError unless `kind` is one of `allowed`."""
    if kind not in allowed:
        raise InputError(f"features is {kind!r}; {', '.join(allowed)} are allowed.")


def filter_energy(lightness: jax.Array) -> jax.Array:
    """Oriented energy and centre-surround contrast: float32 [H, W] -> float32 [10, H, W].

    For each of two scales s (standard deviations of 1 and 2 pixels) there are five channels. Four
    are the root of the local mean of e^2 + o^2 for orientations 0, 45, 90 and 135 degrees, where
    o = s G' and e = s^2 G'' are the first and second derivatives of a Gaussian across the
    orientation: the quadrature pair of Malik, Belongie, Leung, Shi 2001, section 3, here without
    elongation, so that five separable filters give all orientations (Freeman, Adelson 1991). The
    fifth is the root of the local mean of the squared Laplacian s^2 (Gxx + Gyy), the
    centre-surround filter of Leung, Malik 2001. The local mean is a Gaussian of twice the scale.
    Pixels beyond the border repeat those on it.
    """
    anchor = lightness[0, 0]
    return jnp.concatenate([_scale_energy(lightness, sigma, anchor) for sigma in _SCALES])


def _scale_energy(lightness: jax.Array, sigma: float, anchor: jax.Array) -> jax.Array:
    taps = [sigma**order * gaussian_taps(sigma, order) for order in range(3)]
    down = [
        barriers.materialize(functools.partial(convolve, lightness, tap, axis=0), anchor)
        for tap in taps
    ]

    def derivative(rows: int, columns: int) -> jax.Array:
        return barriers.materialize(lambda: convolve(down[rows], taps[columns], axis=1), anchor)

    dy, dx = derivative(1, 0), derivative(0, 1)
    dyy, dxy, dxx = derivative(2, 0), derivative(1, 1), derivative(0, 2)
    energies = []
    for index in range(_ORIENTATIONS):
        angle = math.pi * index / _ORIENTATIONS
        c, s = math.cos(angle), math.sin(angle)
        odd = c * dx + s * dy
        even = c * c * dxx + 2 * c * s * dxy + s * s * dyy
        energies.append(odd**2 + even**2)
    energies.append((dxx + dyy) ** 2)
    pool = gaussian_taps(_POOLING * sigma, 0)
    squares = jnp.stack(energies)
    rows = barriers.materialize(lambda: convolve(squares, pool, axis=1), anchor)
    return jnp.sqrt(convolve(rows, pool, axis=2))


def gaussian_taps(sigma: float, order: int) -> np.ndarray:
    """A sampled Gaussian of sum 1 or its derivative: float32 [2 r + 1], r = ceil(3 sigma).

    Sampling and truncation give the second derivative a sum other than 0, which is removed in the
    shape of the Gaussian, so that a flat image has no derivative.

    Args:
        sigma: standard deviation in pixels.
        order: order of the derivative, 0 to 2.
    """
    radius = math.ceil(_REACH * sigma)
    x = np.arange(-radius, radius + 1)
    bell = np.exp(-(x**2) / (2 * sigma**2))
    bell /= bell.sum()
    factor = {0: 1, 1: -x / sigma**2, 2: (x**2 - sigma**2) / sigma**4}[order]
    taps = factor * bell
    return (taps - taps.sum() * bell if order else taps).astype(np.float32)


def convolve(values: jax.Array, taps: np.ndarray, *, axis: int) -> jax.Array:
    """Convolution along one axis; values beyond the border repeat those on it.

    It adds shifted arrays, which is faster on a CPU than a convolution with one channel and gives
    the same sum for one image and for a batch.
    """
    radius = len(taps) // 2
    pads = [(0, 0)] * values.ndim
    pads[axis] = (radius, radius)
    size = values.shape[axis]
    padded = jnp.pad(values, pads, mode="edge")
    return arrays.total(
        float(tap) * jax.lax.slice_in_dim(padded, start, start + size, axis=axis)
        for start, tap in enumerate(taps[::-1])
    )
