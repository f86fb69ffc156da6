"""Losses of whole images: ratios and ranks, which are no sums over pixels.

Both give each image's mean over classes, those of its truth or all; an image without a labelled
pixel gives 0. A class weight multiplies its class and does not enter the mean's divisor.
"""

import jax
import jax.numpy as jnp

from segjax.data.spec import VOID
from segjax.losses.place import Place

CLASSES = ("present", "all")
_SMOOTH = 1.0  # pixels: what an absent class that is not predicted is divided by


def dice(place: Place, class_weights: jax.Array | None, *, classes: str) -> jax.Array:
    """1 - (2 sum p t + 1) / (sum p + sum t + 1) over the labelled pixels of an image.

    Milletari, Navab, Ahmadi: V-Net, 3DV 2016, section 3, with sums in place of the sums of squares,
    as most do; p are the softmax's probabilities, t is 1 or 0. Block by block.

    Returns:
        float32 [B].
    """

    def sums(logits, label):
        truth = jax.nn.one_hot(label, logits.shape[-1])  # VOID has no class
        p = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
        p = jnp.where((label != VOID)[..., None], p, 0)
        return jnp.stack([jnp.sum(x, axis=(1, 2)) for x in (p * truth, p, truth)])

    both, predicted, truth = place.map(sums).sum(0)
    loss = 1 - (2 * both + _SMOOTH) / (predicted + truth + _SMOOTH)
    return _mean(loss, truth > 0, place, class_weights, classes)


def lovasz_softmax(place: Place, class_weights: jax.Array | None, *, classes: str) -> jax.Array:
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
    def of_class(index):
        p = jnp.exp(place.one_class(index) - total)
        truth = place.label == index
        error = jnp.where(valid, jnp.abs(truth - p), -1.0)  # VOID ranks last
        flat = [x.reshape(x.shape[0], -1) for x in (error, truth, valid)]
        return _extension(*flat), jnp.any(flat[1], axis=1)

    indices = jnp.arange(place.scores.values.shape[-1])
    loss, present = jax.lax.map(of_class, indices)
    return _mean(loss.T, present.T, place, class_weights, classes)


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
    count, hits, misses = (x.astype(jnp.float32) for x in (hits[:, -1:], hits, misses))
    # Differences of 1 - IoU, written out: a million pixels change it by less than it is rounded.
    union = jnp.maximum(count + misses, 1)
    of_miss = (count - hits) / (union * jnp.maximum(union - 1, 1))
    of_miss = jnp.where(count == 0, misses == 1, of_miss)  # the first alone, where there is none
    steps = jnp.where(valid, jnp.where(truth, 1 / union, of_miss), 0)
    # Back to the pixels' own order by a second sort: a gather would make the way back a scatter.
    _, steps = jax.lax.sort([places, steps], num_keys=1)
    return jnp.sum(jnp.where(error >= 0, error * steps, 0), axis=1)


def _mean(loss, present, place: Place, class_weights, classes: str) -> jax.Array:
    """[B, K] -> [B]: over the classes present, or all."""
    counted = present if classes == "present" else jnp.any(present, axis=1, keepdims=True)
    counted = jnp.broadcast_to(counted, loss.shape)
    weights = 1.0 if class_weights is None else class_weights
    total = jnp.sum(jnp.where(counted, weights * loss, 0), axis=1)
    return total / jnp.maximum(jnp.sum(counted, axis=1), 1)
