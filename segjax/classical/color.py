"""CIELAB colours of sRGB images; Euclidean distances in CIELAB approximate perceived ones."""

import jax
import jax.numpy as jnp
import numpy as np

from segjax import contracts

# IEC 61966-2-1: linear sRGB to XYZ, then with rows divided by the white point D65, 2 degrees.
_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_XYZ_OVER_WHITE = (_XYZ / np.array([[0.95047], [1.0], [1.08883]])).astype(np.float32)
_LINEAR_BELOW = 0.04045  # sRGB values below it lie on the straight part of the curve
_CUBE_ABOVE = 0.008856  # shares of white above it have a cube root as lightness
# A third of a float's bits plus this number are the bits of its cube root within 3.5 %.
_ROOT_BITS = 0x2A514067


def srgb_to_lab(image: jax.Array) -> jax.Array:
    """CIELAB of sRGB: uint8 or float [..., H, W, 3] -> float32 [..., H, W, 3].

    Integers are 0 .. 255, and floats 0 .. 1, as in the formula: images of methods have floats of
    0 .. 255. L is 0 .. 100, a and b lie within +-128; white is D65 for the 2 degree observer. CIE
    15:2004, section 8.2.

    Raises:
        InputError: for another type, shape or range.
    """
    return jnp.stack(lab_planes(contracts.image(image, form="[..., H, W, 3]", white=1)), axis=-1)


def image_planes(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """CIELAB planes of an image as `contracts.image` gives it: floats are 0 .. 255, too."""
    if not jnp.issubdtype(image.dtype, jnp.floating):
        return lab_planes(image)
    return _planes([_linear_bytes(image[..., channel]) for channel in range(3)])


def lab_planes(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`srgb_to_lab` as three planes, each float32 [..., H, W], the fastest form on a CPU."""
    return _planes([_linear(image[..., channel]) for channel in range(3)])


def _planes(linear: list[jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The planes of L, a and b from those of linear red, green and blue."""
    red, green, blue = linear
    x, y, z = (_lightness(r * red + g * green + b * blue) for r, g, b in _XYZ_OVER_WHITE)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _linear(channel: jax.Array) -> jax.Array:
    if jnp.issubdtype(channel.dtype, jnp.integer):
        # A table takes half the time of the power.
        return _table()[channel.astype(jnp.int32)]
    # On a CPU exp and log are vectorised, pow is not.
    return _curve(channel.astype(jnp.float32), lambda x, power: jnp.exp(power * jnp.log(x)))


def _linear_bytes(channel: jax.Array) -> jax.Array:
    """Floats of 0 .. 255; whole numbers give exactly what integers give."""
    whole = jnp.clip(jnp.round(channel), 0, 255)
    exact = _table()[whole.astype(jnp.int32)]
    return jnp.where(channel == whole, exact, _linear(channel.astype(jnp.float32) / 255))


def _table() -> jax.Array:
    """The linear values of 0 to 255: float32 [256]."""
    return jnp.asarray(_curve(np.arange(256) / 255, np.power).astype(np.float32))


def _curve(value, power):
    where = np.where if isinstance(value, np.ndarray) else jnp.where
    straight = value <= _LINEAR_BELOW
    base = where(straight, 1, (value + 0.055) / 1.055)
    return where(straight, value / 12.92, power(base, 2.4))


def _lightness(share: jax.Array) -> jax.Array:
    """The function f of CIELAB: a cube root, straight near 0."""
    cube = jnp.maximum(share, _CUBE_ABOVE)
    root = jax.lax.bitcast_convert_type(cube, jnp.int32) // 3 + _ROOT_BITS
    root = jax.lax.bitcast_convert_type(root, jnp.float32)
    # Halley's iteration; eight times faster than jnp.cbrt on a CPU.
    for _ in range(2):
        third = root * root * root
        root = root * (third + 2 * cube) / (2 * third + cube)
    return jnp.where(share > _CUBE_ABOVE, root, 7.787 * share + 16 / 116)
