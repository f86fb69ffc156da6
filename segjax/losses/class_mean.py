"""The mean of a loss over the classes of an image: what losses of whole images share."""

import dataclasses

import jax
import jax.numpy as jnp

from segjax.losses.options import check_classes
from segjax.losses.place import Place


@dataclasses.dataclass(frozen=True)
class ClassMean:
    """A loss of every image that is a mean over its classes.

    Attributes:
        region_classes: the mean is over the classes "present" in the image's truth, or "all".
    """

    region_classes: str = "present"

    counts = "images"

    def __post_init__(self) -> None:
        check_classes(self.region_classes)

    def __call__(self, place: Place) -> tuple[jax.Array, jax.Array]:
        """Summed loss and count: float32 [] and float32 []."""
        return place.sum_images(self.of_images(place))

    def of_images(self, place: Place) -> jax.Array:
        """The loss of every image, 0 where no pixel is labelled: float32 [B]."""
        raise NotImplementedError


def class_mean(
    loss: jax.Array, present: jax.Array, class_weights: jax.Array | None, classes: str
) -> jax.Array:
    """Each image's mean over its classes; 0 for an image without a labelled pixel.

    Args:
        loss: float32 [B, K].
        present: bool [B, K], whether the class occurs in the image's truth.
        class_weights: float32 [K], or None; a weight multiplies its class and does not enter the
            divisor.
        classes: one of `options.CLASSES`.

    Returns:
        float32 [B].
    """
    counted = present if classes == "present" else jnp.any(present, axis=1, keepdims=True)
    counted = jnp.broadcast_to(counted, loss.shape)
    weights = 1.0 if class_weights is None else class_weights
    total = jnp.sum(jnp.where(counted, weights * loss, 0), axis=1)
    return total / jnp.maximum(jnp.sum(counted, axis=1), 1)
