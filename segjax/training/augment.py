"""Augmentation on the device: one warp and one affine colour map for each example.

Random numbers depend only on the key and on the example's position in the endless stream, so an
example is augmented equally on any number of devices, processes and workers, and differently in
every epoch.

An augmentation is a class whose constructor takes options from `config.augment`, `config.input_*`
and `config.augment.options`. An instance augments one example; `batch` maps it over a batch.
`config.augment.name = "my_augment:Grey"` loads one from a module in the current folder:

    @dataclasses.dataclass(frozen=True)
    class Grey(augment.Augment):  # the standard one, then one channel for all three
        share: float = 0.5

        def __call__(self, key, image, label, size, fill):
            image, label = super().__call__(key, image, label, size, fill)
            grey = jax.random.bernoulli(jax.random.fold_in(key, 3), self.share)
            return jnp.where(grey, image[..., 1:2], image), label
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from segjax import registry
from segjax.data.spec import VOID
from segjax.errors import InputError

_LUMA = (0.299, 0.587, 0.114)
_BLUR = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # OpenCV's default taps for a 5 x 5 kernel


class Augmentation(Protocol):
    """A random transformation of an image and its label."""

    def __call__(
        self,
        key: jax.Array,
        image: jax.Array,
        label: jax.Array,
        size: jax.Array,
        fill: tuple[float, ...],
    ) -> tuple[jax.Array, jax.Array]:
        """An augmented example.

        Args:
            key: random key of this example at this position in the stream.
            image: uint8 [H, W, 3], the canvas.
            label: uint8 [H, W].
            size: int32 [2], height and width of the image on the canvas.
            fill: RGB outside the image, 0 to 255.

        Returns:
            float32 [h, w, 3], 0 to 255, and uint8 [h, w], VOID outside the image; h and w are the
            same for every example.
        """


@dataclasses.dataclass(frozen=True)
class Augment:
    """The standard augmentation: scale, crop, flip, rotation, smoothing and colour.

    Attributes:
        size: (h, w) of the crop in pixels.
        scale: (least, most) random scale, log-uniform; applied after `base_scale` or `base_size`.
        base_scale: scale of every image before augmentation (`config.input_scale`).
        base_size: (h, w) that every image is resized to before augmentation
            (`config.input_size`); (0, 0) to use `base_scale`.
        flip: probability of a horizontal flip.
        rotation: largest rotation about the crop's centre, in degrees either way.
        rotation_chance: probability of a rotation.
        blur: probability of a 5 x 5 Gaussian blur (as in semseg, for PSPNet).
        brightness: largest change of brightness either way, as a share of 255.
        contrast, saturation: largest relative change; 0.3 draws factors from 0.7 to 1.3.
        hue: largest rotation about the grey axis in YIQ, in degrees either way.
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    base_scale: float
    base_size: tuple[int, int]
    flip: float
    rotation: float
    rotation_chance: float
    blur: float
    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __post_init__(self) -> None:
        pairs = {"augment.size": self.size, "augment.scale": self.scale}
        for key, values in (pairs | {"input_size": self.base_size}).items():
            if len(values) != 2:  # a flag given twice yields four numbers
                raise InputError(f"config.{key} is two numbers, got {len(values)}: {values}.")
        low, high = self.scale
        if not 0 < low <= high:
            raise InputError(f"config.augment.scale: 0 < least <= most, got {self.scale}.")
        for key in ("flip", "rotation_chance", "blur"):
            if not 0 <= getattr(self, key) <= 1:
                raise InputError(
                    f"config.augment.{key} is a probability, got {getattr(self, key)}."
                )
        if min(self.base_size) < 0 or (min(self.base_size) == 0 < max(self.base_size)):
            raise InputError(
                f"config.input_size is (height, width) or (0, 0), got {self.base_size}."
            )
        if self.base_scale != 1 and any(self.base_size):
            raise InputError(
                f"config.input_scale {self.base_scale} and config.input_size {self.base_size}: "
                "only one of them at a time."
            )
        if self.base_scale * low < 1 / 16:
            raise InputError(
                f"config.augment.scale: a scale of {self.base_scale * low} is below 1/16."
            )
        if self.contrast >= 1 or min(self.contrast, self.brightness, self.saturation) < 0:
            raise InputError(
                "config.augment: contrast is in [0, 1), brightness and saturation are >= 0."
            )

    def __call__(
        self,
        key: jax.Array,
        image: jax.Array,
        label: jax.Array,
        size: jax.Array,
        fill: tuple[float, ...],
    ) -> tuple[jax.Array, jax.Array]:
        """[H, W, 3], [H, W], [2] -> [h, w, 3], [h, w]; see `Augmentation`."""
        key_warp, key_color = jax.random.split(key)
        y, x = _sources(key_warp, size, self)
        image, label, inside = _sample(image, label, size, y, x)
        matrix, shift = _color(key_color, self)
        image = jnp.einsum("hwc,dc->hwd", image, matrix, precision="highest") + shift
        image = jnp.where(
            inside[..., None], jnp.clip(image, 0, 255), jnp.asarray(fill, jnp.float32)
        )
        if self.blur:
            blurred = jax.random.bernoulli(jax.random.fold_in(key, 2), self.blur)
            image = jnp.where(blurred, _smooth(image), image)
        return image, jnp.where(inside, label, jnp.uint8(VOID))


AUGMENTATIONS = {"standard": Augment}


def build(
    *, name: str = "standard", options: Mapping[str, Any] | None = None, **named: Any
) -> Augmentation:
    """The augmentation that `config.augment` describes.

    Args:
        name: one of AUGMENTATIONS, or "module:Name".
        options: options of its constructor, `config.augment.options`.
        **named: the other keys of `config.augment`, `base_scale` and `base_size`; passed if the
            constructor takes them.

    Raises:
        InputError: if a name, option or value is not allowed.
    """
    key = "config.augment"
    registry.deal(named, {"standard": registry.option_names(Augment, "standard", key)}, key)
    cls = registry.find(AUGMENTATIONS, name, f"{key}.name")
    made: Augmentation = registry.bind(
        cls, options or {}, f"{key}.options", name=name, offered=named
    )()
    if not callable(made):
        raise InputError(f"{key}.name: {name} makes a {type(made).__name__}, not an augmentation.")
    return made


def batch(
    key: jax.Array,
    batch: dict[str, jax.Array],
    augmentation: Augmentation,
    fill: tuple[float, ...],
) -> tuple[jax.Array, jax.Array]:
    """Augments a batch.

    Args:
        key: root key of all augmentation.
        batch: `image` uint8 [B, H, W, 3], `label` uint8 [B, H, W], `size` int32 [B, 2] (the valid
            part of the canvas), `position` and `position_high` uint32 [B].
        augmentation: augmentation of one example.
        fill: RGB outside the image, 0 to 255.

    Returns:
        float32 [B, h, w, 3], 0 to 255, and uint8 [B, h, w], VOID outside the image.

    Raises:
        InputError: if the augmentation returns other types or shapes.
    """

    def one(
        image: jax.Array, label: jax.Array, size: jax.Array, low: jax.Array, high: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return augmentation(_example_key(key, low, high), image, label, size, fill)

    names = ("image", "label", "size", "position", "position_high")
    image, label = jax.vmap(one)(*(batch[name] for name in names))
    if (image.dtype, label.dtype) != (jnp.float32, jnp.uint8) or image.shape != (*label.shape, 3):
        raise InputError(
            f"config.augment.name: augmentation returns {image.dtype}{list(image.shape[1:])} and "
            f"{label.dtype}{list(label.shape[1:])}; it must be float32[h, w, 3] and uint8[h, w]."
        )
    return image, label


def _example_key(key: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """The key of a position in the stream, high 2^32 + low; of `low` alone where `high` is 0."""
    first = jax.random.fold_in(key, low)
    return jnp.where(high == 0, first, jax.random.fold_in(first, high))


_ONE = 1 << 14  # fixed-point unit of the warp
_TURN = 1 << 12  # fixed-point unit of sines and cosines
_LEVELS = 1 << 12  # number of scales or angles to draw from


def _sources(key: jax.Array, size: jax.Array, options: Augment) -> tuple[jax.Array, jax.Array]:
    """Source position of each crop pixel: int32 [h, w] twice, in 1 / (2 _ONE) source pixels.

    All arithmetic is in integers, and scale and angle come from tables, so that every device
    computes bit-identical pixels. Pixel i covers [i, i + 1). The crop starts at a whole pixel of
    the scaled image, so that at scale 1 without rotation pixels are copied, not interpolated.
    """
    key_scale, key_place, key_flip, key_turn = jax.random.split(key, 4)
    low, high = np.log(options.scale)
    logs = np.linspace(low, high, _LEVELS)
    zoom = _draw(key_scale, _ONE / (options.base_scale * np.exp(logs)))  # seen per crop pixel
    seen = jnp.array(options.base_size, jnp.int32) if any(options.base_size) else size
    # Source per crop pixel: zoom x size / seen, rounded down, so that the last pixel of the whole
    # image lies inside it. In two products, since zoom x size itself may not fit in 31 bits.
    pitch = size // seen * zoom + size % seen * zoom // seen
    crop = jnp.array(options.size, jnp.int32)
    # Negative if the scaled image is smaller than the crop; the image then lies inside the crop.
    slack = jnp.round((seen * _ONE).astype(jnp.float32) / zoom).astype(jnp.int32) - crop
    steps = jnp.floor(jax.random.uniform(key_place, (2,)) * (jnp.abs(slack) + 1))
    start = jnp.sign(slack) * jnp.minimum(steps.astype(jnp.int32), jnp.abs(slack)) * pitch
    mirror = jnp.where(jax.random.bernoulli(key_flip, options.flip), -1, 1)
    angles = np.radians(np.linspace(-options.rotation, options.rotation, _LEVELS))
    turned = jax.random.bernoulli(jax.random.fold_in(key_turn, 1), options.rotation_chance)
    turns = [
        jnp.where(turned, _draw(key_turn, _TURN * f(angles)), round(_TURN * f(0.0)))
        for f in (np.cos, np.sin)
    ]
    cos, sin = (t * (pitch // _TURN) + t * (pitch % _TURN) // _TURN for t in turns)  # t x pitch

    y = 2 * jnp.arange(options.size[0])[:, None] + 1 - crop[0]
    x = (2 * jnp.arange(options.size[1])[None, :] + 1 - crop[1]) * mirror
    centre = 2 * start + crop * pitch
    return cos[0] * y + sin[0] * x + centre[0], cos[1] * x - sin[1] * y + centre[1]


def _draw(key: jax.Array, table: np.ndarray) -> jax.Array:
    """A random entry of the table, rounded to int32."""
    level = jax.random.randint(key, (), 0, len(table))
    return jnp.asarray(np.round(table).astype(np.int32))[level]


def _sample(
    image: jax.Array, label: jax.Array, size: jax.Array, y: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Samples the image bilinearly and the label by nearest pixel; also which pixels lie inside.

    The colours and the label of a pixel are packed into one 32-bit word, so that a crop pixel costs
    four gathers; the nearest label is always among the four. Weights have 8 bits, as in texture
    units, so that the blend of four bytes is exact in float32.
    """
    parts = [image[..., c].astype(jnp.uint32) << (8 * c) for c in range(3)]
    words = (parts[0] | parts[1] | parts[2] | (label.astype(jnp.uint32) << 24)).ravel()
    inside = (y >= 0) & (y < 2 * _ONE * size[0]) & (x >= 0) & (x < 2 * _ONE * size[1])
    top, part_y = _split(y)
    left, part_x = _split(x)
    nearest_y, nearest_x = part_y >= 128, part_x >= 128

    color = jnp.zeros((*y.shape, 3), jnp.float32)
    nearest = jnp.zeros(y.shape, jnp.uint8)
    for down in (0, 1):
        row = jnp.clip(top + down, 0, size[0] - 1)
        for right in (0, 1):
            column = jnp.clip(left + right, 0, size[1] - 1)
            word = words[row * label.shape[1] + column]
            weight = (part_y if down else 256 - part_y) * (part_x if right else 256 - part_x)
            corner = jnp.stack([(word >> (8 * c)) & 255 for c in range(3)], axis=-1)
            color += weight[..., None].astype(jnp.float32) * corner.astype(jnp.float32)
            chosen = (nearest_y == bool(down)) & (nearest_x == bool(right))
            nearest = jnp.where(chosen, (word >> 24).astype(jnp.uint8), nearest)
    return color / 2**16, nearest, inside


def _split(position: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The last pixel centre before a position, and the distance from it in 1/256 pixel: int32."""
    unit = 2 * _ONE
    shifted = position - unit // 2 + unit // 512  # to centres, and to the nearest 1/256
    return shifted // unit, shifted % unit * 256 // unit


def _smooth(image: jax.Array) -> jax.Array:
    """5 x 5 Gaussian blur with mirrored borders, as in OpenCV: float32 [h, w, 3] -> [h, w, 3]."""
    for axis in (0, 1):
        pads = [(0, 0)] * 3
        pads[axis] = (2, 2)
        wide, size = jnp.pad(image, pads, mode="reflect"), image.shape[axis]
        parts = (jax.lax.slice_in_dim(wide, k, k + size, axis=axis) for k in range(5))
        total: Any = sum(tap * part for tap, part in zip(_BLUR, parts, strict=True))
        image = total
    return image


def _color(key: jax.Array, options: Augment) -> tuple[jax.Array, jax.Array]:
    """Brightness, contrast, saturation and hue as one affine map: float32 [3, 3] and [3]."""
    key_hue, key_rest = jax.random.split(key)
    draws = jax.random.uniform(key_rest, (3,), minval=-1.0, maxval=1.0)
    contrast = 1 + options.contrast * draws[0]
    saturation = 1 + options.saturation * draws[1]
    angles = np.radians(np.linspace(-options.hue, options.hue, _LEVELS))
    cos, sin = (_draw(key_hue, _ONE * f(angles)) / _ONE for f in (np.cos, np.sin))
    # In YIQ (NTSC) hue rotates the plane of I and Q, saturation scales it, and Y stays. A colour is
    # grey + (cos I/Q part + sin rotated part) x saturation, with two constant matrices.
    to_yiq = np.array([_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    from_yiq = np.linalg.inv(to_yiq)
    grey = np.outer(np.ones(3), _LUMA)
    quarter = from_yiq @ np.array([(0, 0, 0), (0, 0, -1), (0, 1, 0)]) @ to_yiq
    matrix = grey + saturation * (cos * (np.eye(3) - grey) + sin * quarter)
    if options.hue == 0 and options.saturation == 0:
        matrix = jnp.eye(3)  # the sum above is the identity only up to rounding
    shift = 127.5 * (1 - contrast) + 255 * options.brightness * draws[2]
    return contrast * matrix.astype(jnp.float32), jnp.full((3,), shift)
