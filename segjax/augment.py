"""Augmentation on the device: one warp and one affine map of colour for each example.

Every number is drawn from the key and the example's place in the endless stream, so an example is
augmented alike on any number of devices, processes and workers, and differently in every epoch.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from segjax.data.spec import VOID
from segjax.errors import InputError

_LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Augment:
    """What is drawn, and from where to where.

    Attributes:
        size: (h, w) of the crop: what the network is trained on.
        scale: (least, most) factor of the image, drawn evenly in its logarithm. It multiplies
            `base_scale`.
        base_scale: factor of every image before augmentation (`config.input_scale`).
        flip: probability of mirroring left and right.
        rotation: most degrees, either way, about the crop's centre.
        brightness: most that is added or taken away, in units of 255.
        contrast, saturation: most relative change, 0.3 draws from 0.7 to 1.3.
        hue: most degrees around the axis of greys (in YIQ).
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    base_scale: float
    flip: float
    rotation: float
    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __post_init__(self):
        low, high = self.scale
        if not 0 < low <= high:
            raise InputError(f"augment.scale: 0 < least <= most, got {self.scale}.")
        if not 0 <= self.flip <= 1:
            raise InputError(f"augment.flip is a probability, got {self.flip}.")
        if self.contrast >= 1 or min(self.contrast, self.brightness, self.saturation) < 0:
            raise InputError("augment: contrast is in [0, 1), brightness and saturation are >= 0.")


def batch(
    key: jax.Array, batch: dict[str, jax.Array], options: Augment, fill: tuple[float, ...]
) -> tuple[jax.Array, jax.Array]:
    """Augments a batch.

    Args:
        key: root key of all augmentation.
        batch: `image` uint8 [B, H, W, 3], `label` uint8 [B, H, W], `size` int32 [B, 2] (the valid
            part of the canvas), `position` uint32 [B].
        options: what to draw.
        fill: RGB, 0 to 255, outside the image.

    Returns:
        float32 [B, h, w, 3], 0 to 255, and uint8 [B, h, w], VOID outside the image.
    """

    def one(image, label, size, position):
        return example(jax.random.fold_in(key, position), image, label, size, options, fill)

    return jax.vmap(one)(batch["image"], batch["label"], batch["size"], batch["position"])


def example(
    key: jax.Array,
    image: jax.Array,
    label: jax.Array,
    size: jax.Array,
    options: Augment,
    fill: tuple[float, ...],
) -> tuple[jax.Array, jax.Array]:
    """One example of `batch`: [H, W, 3], [H, W], [2] -> [h, w, 3], [h, w]."""
    key_warp, key_color = jax.random.split(key)
    y, x = _sources(key_warp, size, options)
    image, label, inside = _sample(image, label, size, y, x)
    matrix, shift = _color(key_color, options)
    image = jnp.einsum("hwc,dc->hwd", image, matrix, precision="highest") + shift
    image = jnp.where(inside[..., None], jnp.clip(image, 0, 255), jnp.asarray(fill, jnp.float32))
    return image, jnp.where(inside, label, jnp.uint8(VOID))


def _sources(key: jax.Array, size: jax.Array, options: Augment) -> tuple[jax.Array, jax.Array]:
    """Where each pixel of the crop comes from: float32 [h, w] twice, in source pixels.

    Pixel i covers [i, i + 1). The crop is cut at whole pixels of the scaled image, so that at scale
    1 without rotation pixels are copied, not blended.
    """
    key_scale, key_place, key_flip, key_turn = jax.random.split(key, 4)
    low, high = (math.log(s) for s in options.scale)
    scale = options.base_scale * jnp.exp(jax.random.uniform(key_scale, (), minval=low, maxval=high))
    crop = jnp.asarray(options.size, jnp.float32)
    slack = size * scale - crop  # negative where the scaled image is smaller: it is placed inside
    start = jnp.round(jax.random.uniform(key_place, (2,)) * slack)
    mirror = jnp.where(jax.random.bernoulli(key_flip, options.flip), -1.0, 1.0)
    degrees = jax.random.uniform(key_turn, (), minval=-options.rotation, maxval=options.rotation)
    angle = degrees * math.pi / 180

    y = jnp.arange(options.size[0])[:, None] + 0.5 - crop[0] / 2
    x = (jnp.arange(options.size[1])[None, :] + 0.5 - crop[1] / 2) * mirror
    turned_y = jnp.cos(angle) * y + jnp.sin(angle) * x
    turned_x = jnp.cos(angle) * x - jnp.sin(angle) * y
    centre = start + crop / 2
    return (turned_y + centre[0]) / scale, (turned_x + centre[1]) / scale


def _sample(
    image: jax.Array, label: jax.Array, size: jax.Array, y: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Bilinear for the image, nearest for the label, and which pixels lie inside.

    A pixel's three colours and its label travel as one 32-bit word, so that a pixel of the crop
    costs four gathered words; the nearest label is always one of the four.
    """
    parts = [image[..., c].astype(jnp.uint32) << (8 * c) for c in range(3)]
    words = (parts[0] | parts[1] | parts[2] | (label.astype(jnp.uint32) << 24)).ravel()
    height, width = size[0], size[1]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    top, left = jnp.floor(y - 0.5), jnp.floor(x - 0.5)
    part_y, part_x = y - 0.5 - top, x - 0.5 - left
    nearest_y, nearest_x = part_y >= 0.5, part_x >= 0.5

    color = jnp.zeros((*y.shape, 3), jnp.float32)
    nearest = jnp.zeros(y.shape, jnp.uint8)
    for down in (0, 1):
        row = jnp.clip(top.astype(jnp.int32) + down, 0, height - 1)
        for right in (0, 1):
            column = jnp.clip(left.astype(jnp.int32) + right, 0, width - 1)
            word = words[row * label.shape[1] + column]
            weight = (part_y if down else 1 - part_y) * (part_x if right else 1 - part_x)
            corner = jnp.stack([(word >> (8 * c)) & 255 for c in range(3)], axis=-1)
            color += weight[..., None] * corner.astype(jnp.float32)
            chosen = (nearest_y == bool(down)) & (nearest_x == bool(right))
            nearest = jnp.where(chosen, (word >> 24).astype(jnp.uint8), nearest)
    return color, nearest, inside


def _color(key: jax.Array, options: Augment) -> tuple[jax.Array, jax.Array]:
    """Brightness, contrast, saturation and hue as one map: float32 [3, 3] and [3]."""
    draws = jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)
    contrast = 1 + options.contrast * draws[0]
    saturation = 1 + options.saturation * draws[1]
    angle = options.hue * math.pi / 180 * draws[2]
    # YIQ (NTSC): hue turns the plane of I and Q, saturation stretches it, Y stays.
    to_yiq = jnp.array([_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    cos, sin = saturation * jnp.cos(angle), saturation * jnp.sin(angle)
    zero, one = jnp.zeros(()), jnp.ones(())
    turn = jnp.stack(
        [jnp.stack(row) for row in ((one, zero, zero), (zero, cos, -sin), (zero, sin, cos))]
    )
    matrix = jnp.linalg.inv(to_yiq) @ turn @ to_yiq
    if options.hue == 0 and options.saturation == 0:
        matrix = jnp.eye(3)  # the product above is the identity only up to rounding
    shift = 127.5 * (1 - contrast) + 255 * options.brightness * draws[3]
    return contrast * matrix, jnp.full((3,), shift)
