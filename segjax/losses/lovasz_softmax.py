"""Lovász-Softmax loss: the intersection over union, made a loss that has gradients."""

import jax
import jax.numpy as jnp

from segjax.data.spec import VOID
from segjax.losses.class_mean import ClassMean, class_mean
from segjax.losses.place import Place


class LovaszSoftmax(ClassMean):
    """The Lovász-Softmax loss of every image."""

    def of_images(self, place: Place) -> jax.Array:
        """See `ClassMean.of_images`."""
        return lovasz_softmax(place, classes=self.region_classes)


def lovasz_softmax(place: Place, *, classes: str) -> jax.Array:
    """The convex extension of 1 - IoU to the softmax's errors, image by image.

    Berman, Rannen Triki, Blaschko: The Lovász-Softmax Loss, CVPR 2018, section 3. It ranks the
    errors of all pixels, so it cannot be had in blocks of rows; it goes class by class instead, and
    keeps a few numbers a pixel, never K.

    Returns:
        float32 [B].
    """
    total = place.pixels(lambda logits, _: jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1))
    valid = place.label != VOID

    @jax.checkpoint
    def of_class(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        p = jnp.exp(place.one_class(index) - total)
        truth = place.label == index
        error = jnp.where(valid, jnp.abs(truth - p), -1.0)  # VOID ranks last
        flat = [x.reshape(x.shape[0], -1) for x in (error, truth, valid)]
        return _extension(*flat), jnp.any(flat[1], axis=1)

    indices = jnp.arange(place.scores.values.shape[-1])
    loss, present = jax.lax.map(of_class, indices)
    return class_mean(loss.T, present.T, place.class_weights, classes)


def _extension(error: jax.Array, truth: jax.Array, valid: jax.Array) -> jax.Array:
    """The sum of errors, each times what it adds to 1 - IoU when errors come in falling order.

    Args:
        error: float32 [B, P].
        truth: bool [B, P], whether it is of the class.
        valid: bool [B, P].

    Returns:
        float32 [B].
    """
    places = jax.lax.broadcasted_iota(jnp.int32, error.shape, 1)
    fixed = [jax.lax.stop_gradient(x) for x in (-error, truth, valid, places)]
    _, truth, valid, places = jax.lax.sort(fixed, num_keys=1)
    hits = jnp.cumsum(truth, axis=1, dtype=jnp.int32)
    misses = jnp.cumsum(valid & ~truth, axis=1, dtype=jnp.int32)
    count = hits[:, -1:]
    # Differences of 1 - IoU, written out: a million pixels change it by less than it is rounded.
    # Whole numbers are added as such, as floats lose the last pixels of a large image.
    union, before, missing = (
        x.astype(jnp.float32)
        for x in (
            jnp.maximum(count + misses, 1),
            jnp.maximum(count + misses - 1, 1),
            count - hits,
        )
    )
    of_miss = missing / (union * before)
    of_miss = jnp.where(count == 0, misses == 1, of_miss)  # the first alone, where there is none
    steps = jnp.where(valid, jnp.where(truth, 1 / union, of_miss), 0)
    # A second sort restores the order of the pixels: the gradient of a gather would be a scatter.
    _, steps = jax.lax.sort([places, steps], num_keys=1)
    return jnp.sum(jnp.where(error >= 0, error * steps, 0), axis=1)
