"""What a pixel is described by when pixels are clustered: colour, place, texture."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from segjax.classical import barriers, color
from segjax.errors import InputError

KINDS = ("rgb", "lab", "lab_xy", "texture")
POINTWISE = KINDS[:3]
"""Kinds that need no neighbours of a pixel."""

_SCALES = (1.0, 2.0)  # pixels, of the derivatives
_ORIENTATIONS = 4
_REACH = 3  # standard deviations that a filter extends to each side
_POOLING = 2  # the energy of a scale is smoothed this many times wider


def pixel_features(
    image: jax.Array, kind: str = "lab", *, position: float = 50.0, texture: float = 1.0
) -> jax.Array:
    """Describes every pixel: uint8 [H, W, 3] -> float32 [F, H, W].

    Channels come first: on a CPU that is several times faster for all that follows.

    Args:
        image: RGB.
        kind: "rgb" (0 .. 255), "lab" (CIELAB), "lab_xy" (CIELAB, y, x) or "texture" (CIELAB and
            the rows of `filter_energy`).
        position: of "lab_xy", the length of the image's longer side in units of CIELAB.
        texture: of "texture", the weight of the filters' energy, itself in units of L.

    Raises:
        InputError: for another kind.
    """
    check(kind)
    height, width = image.shape[:2]
    if kind == "texture":
        lab = jnp.stack(color.lab_planes(image))
        return jnp.concatenate([lab, texture * filter_energy(lab[0])])
    rows = jax.lax.broadcasted_iota(jnp.float32, (height, width), 0)
    columns = jax.lax.broadcasted_iota(jnp.float32, (height, width), 1)
    return point_features(image, rows, columns, kind, scale=position / max(height, width))


def point_features(
    colors: jax.Array, rows: jax.Array, columns: jax.Array, kind: str, *, scale: float
) -> jax.Array:
    """The same for any set of pixels, and kinds in POINTWISE alone.

    Args:
        colors: uint8 [A, B, 3], RGB.
        rows, columns: float32 [A, B], places in the image, in pixels.
        kind: one of POINTWISE.
        scale: of "lab_xy", units of CIELAB to a pixel.

    Returns:
        float32 [F, A, B].

    Raises:
        InputError: for another kind.
    """
    check(kind, POINTWISE)
    if kind == "rgb":
        return jnp.stack([colors[..., channel].astype(jnp.float32) for channel in range(3)])
    place = (scale * rows, scale * columns) if kind == "lab_xy" else ()
    return jnp.stack([*color.lab_planes(colors), *place])


def count(kind: str) -> int:
    """F of a kind."""
    check(kind)
    filters = (_ORIENTATIONS + 1) * len(_SCALES)
    return 3 + {"lab_xy": 2, "texture": filters}.get(kind, 0)


def check(kind: str, allowed: tuple[str, ...] = KINDS) -> None:
    """Raises InputError unless `kind` is one of `allowed`."""
    if kind not in allowed:
        raise InputError(f"features is {kind!r}; {', '.join(allowed)} are allowed.")


def filter_energy(lightness: jax.Array) -> jax.Array:
    """Oriented energy and centre-surround contrast: float32 [H, W] -> float32 [10, H, W].

    At each of two scales s (standard deviations of 1 and 2 pixels): for orientations 0, 45, 90 and
    135 degrees the root of the local mean of e^2 + o^2, where o = s G' and e = s^2 G'' are the
    first and second derivatives of a Gaussian across the orientation (the quadrature pair of Malik,
    Belongie, Leung, Shi 2001, section 3, here without elongation, so that all orientations are
    combinations of five separable filters: Freeman, Adelson 1991); then that of the Laplacian
    s^2 (Gxx + Gyy), the centre-surround filter of Leung, Malik 2001. The local mean is a Gaussian
    of twice the scale. Pixels beyond the border repeat those on it.
    """
    anchor = lightness[0, 0]
    return jnp.concatenate([_scale_energy(lightness, sigma, anchor) for sigma in _SCALES])


def _scale_energy(lightness: jax.Array, sigma: float, anchor: jax.Array) -> jax.Array:
    taps = [sigma**order * gaussian_taps(sigma, order) for order in range(3)]
    down = [
        barriers.apart(lambda tap=tap: convolve(lightness, tap, axis=0), anchor) for tap in taps
    ]

    def derivative(rows: int, columns: int) -> jax.Array:
        return barriers.apart(lambda: convolve(down[rows], taps[columns], axis=1), anchor)

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
    rows = barriers.apart(lambda: convolve(squares, pool, axis=1), anchor)
    return jnp.sqrt(convolve(rows, pool, axis=2))


def gaussian_taps(sigma: float, order: int) -> np.ndarray:
    """A sampled Gaussian of sum 1 or its derivative: float32 [2 r + 1], r = ceil(3 sigma).

    What sampling and cutting off leave of the second derivative's sum is taken out with the shape
    of the Gaussian: a flat image has no derivative.

    Args:
        sigma: standard deviation in pixels.
        order: 0, 1 or 2, of the derivative.
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

    A sum of shifted arrays: faster on a CPU than a convolution with one channel, and the same sum
    for one image and for a batch.
    """
    radius = len(taps) // 2
    pads = [(0, 0)] * values.ndim
    pads[axis] = (radius, radius)
    size = values.shape[axis]
    padded = jnp.pad(values, pads, mode="edge")
    return sum(
        float(tap) * jax.lax.slice_in_dim(padded, start, start + size, axis=axis)
        for start, tap in enumerate(taps[::-1])
    )
