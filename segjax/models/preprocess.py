"""From the RGB of an image file to what a backbone was made for."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """From RGB of 0 to 255 to what the backbone was made for.

    Attributes:
        mean, std: RGB, in units of 0 to 255. The mean also fills what lies outside an image.
        bgr: hand the channels over as blue, green, red, after normalising.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool

    def __call__(self, image: jax.Array) -> jax.Array:
        """uint8 or float [..., 3] -> float32 [..., 3]."""
        image = image.astype(jnp.float32) - jnp.asarray(self.mean, jnp.float32)
        image = image / jnp.asarray(self.std, jnp.float32)
        return image[..., ::-1] if self.bgr else image
