"""Normalisation: from the RGB values of an image to the input of a backbone."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """The normalisation that a backbone was made for: (RGB - mean) / std.

    Attributes:
        mean, std: of red, green and blue, in units of 0 to 255. The mean also fills the area
            outside an image.
        bgr: whether the channels are reversed to blue, green, red after normalising.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool

    def __call__(self, image: jax.Array) -> jax.Array:
        """RGB of 0 to 255, uint8 or float [..., 3] -> float32 [..., 3]."""
        image = image.astype(jnp.float32) - jnp.asarray(self.mean, jnp.float32)
        image = image / jnp.asarray(self.std, jnp.float32)
        return image[..., ::-1] if self.bgr else image
