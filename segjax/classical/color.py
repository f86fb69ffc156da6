"""CIELAB of sRGB images: the space in which Euclidean distance is meant to be seen."""

import jax
import jax.numpy as jnp
import numpy as np

# IEC 61966-2-1: linear sRGB to XYZ; rows divided by the white point D65, 2 degrees.
_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_OF_WHITE = (_XYZ / np.array([[0.95047], [1.0], [1.08883]])).astype(np.float32)
_LINEAR_BELOW = 0.04045  # of an sRGB value: the straight part of its curve
_CUBE_ABOVE = 0.008856  # of a share of white: where the cube root begins
# The bits of a float divided by 3, plus this, are its cube root to 3.5 %.
_ROOT_BITS = 0x2A514067


def srgb_to_lab(image: jax.Array) -> jax.Array:
    """CIELAB of sRGB: uint8 or float [..., H, W, 3] -> float32 [..., H, W, 3].

    Integers are 0 .. 255, floats 0 .. 1. L is 0 .. 100, a and b within +-128; white is D65 seen
    under 2 degrees. CIE 15:2004, section 8.2.
    """
    return jnp.stack(lab_planes(image), axis=-1)


def lab_planes(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`srgb_to_lab` as three arrays, each float32 [..., H, W]: what a CPU handles fastest."""
    red, green, blue = (_linear(image[..., channel]) for channel in range(3))
    x, y, z = (_lightness(r * red + g * green + b * blue) for r, g, b in _OF_WHITE)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _linear(channel: jax.Array) -> jax.Array:
    if jnp.issubdtype(channel.dtype, jnp.integer):
        # Reading a table takes half as long as the power.
        table = _curve(np.arange(256) / 255, np.power).astype(np.float32)
        return jnp.asarray(table)[channel.astype(jnp.int32)]
    # On a CPU exp and log are vectorised and pow is not.
    return _curve(channel.astype(jnp.float32), lambda x, power: jnp.exp(power * jnp.log(x)))


def _curve(value, power):
    where = np.where if isinstance(value, np.ndarray) else jnp.where
    straight = value <= _LINEAR_BELOW
    base = where(straight, 1, (value + 0.055) / 1.055)
    return where(straight, value / 12.92, power(base, 2.4))


def _lightness(share: jax.Array) -> jax.Array:
    """The compressive function f of CIELAB: a cube root with a straight foot."""
    cube = jnp.maximum(share, _CUBE_ABOVE)
    root = jax.lax.bitcast_convert_type(cube, jnp.int32) // 3 + _ROOT_BITS
    root = jax.lax.bitcast_convert_type(root, jnp.float32)
    # Halley's iteration; eight times faster than jnp.cbrt on a CPU.
    for _ in range(2):
        third = root * root * root
        root = root * (third + 2 * cube) / (2 * third + cube)
    return jnp.where(share > _CUBE_ABOVE, root, 7.787 * share + 16 / 116)
