"""Dice loss: one minus the overlap of each class's probabilities with its truth."""

import jax
import jax.numpy as jnp

from segjax.data.spec import VOID
from segjax.losses.class_mean import ClassMean, class_mean
from segjax.losses.place import Place

_SMOOTH = 1.0  # pixels: what an absent class that is not predicted is divided by


class Dice(ClassMean):
    """The Dice loss of every image."""

    def of_images(self, place: Place) -> jax.Array:
        """See `ClassMean.of_images`."""
        return dice(place, classes=self.region_classes)


def dice(place: Place, *, classes: str) -> jax.Array:
    """1 - (2 sum p t + 1) / (sum p + sum t + 1) over the labelled pixels of an image.

    Milletari, Navab, Ahmadi: V-Net, 3DV 2016, section 3, with sums in place of the sums of squares,
    as most do; p are the softmax's probabilities, t is 1 or 0. Block by block.

    Returns:
        float32 [B].
    """

    def sums(logits: jax.Array, label: jax.Array) -> tuple[jax.Array, ...]:
        truth = jax.nn.one_hot(label, logits.shape[-1], dtype=bool)  # VOID has no class
        p = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
        p = jnp.where((label != VOID)[..., None], p, 0)
        count = jnp.sum(truth, axis=(1, 2), dtype=jnp.int32)  # floats would stick at 2^24
        return *(jnp.sum(x, axis=(1, 2)) for x in (p * truth, p)), count

    both, predicted, truth = (x.sum(0) for x in place.map(sums))
    loss = 1 - (2 * both + _SMOOTH) / (predicted + truth + _SMOOTH)
    return class_mean(loss, truth > 0, place.class_weights, classes)
