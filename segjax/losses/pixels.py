"""Losses that are sums over pixels."""

import jax
import jax.numpy as jnp
import optax

from segjax.data.spec import VOID
from segjax.losses.place import Place

_ONE = 0x3F800000  # the bits of 1.0, as float32


def cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    class_weights: jax.Array | None = None,
    *,
    smoothing: float = 0.0,
) -> jax.Array:
    """Softmax cross-entropy.

    Args:
        logits: [B, H, W, K], taken to float32.
        label: uint8 [B, H, W], classes or VOID.
        class_weights: float32 [K], each pixel's loss times the weight of its class.
        smoothing: share of the target that is spread over all classes evenly (Szegedy et al. 2016,
            section 7); weights then count class by class, as in PyTorch.

    Returns:
        float32 [B, H, W], 0 at VOID.
    """
    logits = logits.astype(jnp.float32)
    valid, target = _targets(label)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    if class_weights is not None:
        loss = loss * jnp.take(class_weights, target)
    if smoothing:
        weights = 1.0 if class_weights is None else class_weights
        every = -jnp.mean(weights * jax.nn.log_softmax(logits, axis=-1), axis=-1)
        loss = (1 - smoothing) * loss + smoothing * every
    return jnp.where(valid, loss, 0)


def count(label: jax.Array, class_weights: jax.Array | None = None) -> jax.Array:
    """float32 []: the labelled pixels, or the sum of the weights of their classes."""
    valid, target = _targets(label)
    each = 1.0 if class_weights is None else jnp.take(class_weights, target)
    return jnp.sum(jnp.where(valid, each, 0), dtype=jnp.float32)


def focal(
    logits: jax.Array, label: jax.Array, class_weights: jax.Array | None = None, *, gamma: float
) -> jax.Array:
    """(1 - p)^gamma times cross-entropy, p the probability of the truth.

    Lin, Goyal, Girshick, He, Dollár: Focal Loss for Dense Object Detection, ICCV 2017, section 3.2,
    over a softmax; alpha are the class weights. Arguments and result as of `cross_entropy`.
    """
    logits = logits.astype(jnp.float32)
    _, target = _targets(label)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    # 1 - p without the cancellation where p is near 1; the floor keeps the power's slope finite.
    other = jnp.maximum(-jnp.expm1(-nll), jnp.finfo(jnp.float32).tiny)
    return other**gamma * cross_entropy(logits, label, class_weights)


def hard_pixels(place: Place, *, threshold: float, share: float) -> jax.Array:
    """The label without its easy pixels: online hard example mining.

    A pixel is hard if the probability of its truth is at most `threshold`, or among the lowest
    `share` of the labelled pixels of the batch (Shrivastava et al., CVPR 2016, as the segmentation
    libraries do it). Ties with the last of them are kept, too.

    Returns:
        uint8 [B, H, W], VOID where easy.
    """

    def of_truth(logits, label):
        valid, target = _targets(label)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), target)
        return jnp.where(valid, jnp.exp(-nll), 2.0)  # VOID lies behind all

    probability = jax.lax.stop_gradient(place.pixels(of_truth))
    valid = place.label != VOID
    wanted = jnp.ceil(share * jnp.sum(valid, dtype=jnp.float32)).astype(jnp.int32)
    hard = probability <= jnp.maximum(threshold, _lowest(probability, wanted))
    return jnp.where(valid & hard, place.label, jnp.uint8(VOID))


def _lowest(x: jax.Array, count: jax.Array) -> jax.Array:
    """The count-th lowest of numbers from 0 on, at most 1: by bisection, as a sort is not sharded.

    Bits of floats from 0 on are in the order of the floats.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)

    def halve(_, ends):
        low, high = ends
        middle = (low + high) // 2
        enough = jnp.sum(bits <= middle, dtype=jnp.int32) >= count
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    _, high = jax.lax.fori_loop(0, 31, halve, (jnp.int32(0), jnp.int32(_ONE)))
    return jax.lax.bitcast_convert_type(high, jnp.float32)


def _targets(label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where it is labelled, and int32 classes; VOID would index past the class axis."""
    valid = label != VOID
    return valid, jnp.where(valid, label, 0).astype(jnp.int32)
