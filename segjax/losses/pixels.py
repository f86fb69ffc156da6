"""Cross-entropy pixel by pixel, and counts of pixels: what several losses and evaluation share."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from segjax.data.spec import VOID
from segjax.models import row_blocks


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
    valid, target = targets(label)
    loss = _log_loss(logits, target)
    if class_weights is not None:
        loss = loss * jnp.take(class_weights, target)
    if smoothing:
        weights = 1.0 if class_weights is None else class_weights
        every = -jnp.mean(weights * jax.nn.log_softmax(logits, axis=-1), axis=-1)
        loss = (1 - smoothing) * loss + smoothing * every
    return jnp.where(valid, loss, 0)


@jax.custom_vjp
def _log_loss(logits: jax.Array, target: jax.Array) -> jax.Array:
    """-log softmax of the target: [B, H, W, K] and int32 [B, H, W] -> [B, H, W]."""
    loss: jax.Array = _log_loss_forward(logits, target)[0]
    return loss


def _log_loss_forward(logits: jax.Array, target: jax.Array) -> tuple:
    top = checkpoint_name(jnp.max(logits, axis=-1), row_blocks.KEPT)
    total = jnp.sum(jnp.exp(logits - top[..., None]), axis=-1)
    total = checkpoint_name(total, row_blocks.KEPT)
    chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    return jnp.log(total) - (chosen - top), (logits, target, top, total)


# That of the formulas has a scatter, for the look-up, and a pass for every part.
def _log_loss_backward(kept: tuple, cotangent: jax.Array) -> tuple:
    logits, target, top, total = kept
    # Columns last, as products that resize leave them: else compilers transpose before and after.
    logits = jnp.swapaxes(logits, -1, -2)
    share = jnp.exp(logits - top[..., None, :]) / total[..., None, :]
    named = jnp.arange(logits.shape[-2])[:, None] == target[..., None, :]
    return jnp.swapaxes(cotangent[..., None, :] * (share - named), -1, -2), None


_log_loss.defvjp(_log_loss_forward, _log_loss_backward)


def count(label: jax.Array, class_weights: jax.Array | None = None) -> jax.Array:
    """float32 []: the labelled pixels, or the sum of the weights of their classes."""
    valid, target = targets(label)
    if class_weights is None:  # exact up to 2^31, and rounded once
        return jnp.sum(valid, dtype=jnp.int32).astype(jnp.float32)
    return jnp.sum(jnp.where(valid, jnp.take(class_weights, target), 0), dtype=jnp.float32)


def targets(label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """bool and int32 [B, H, W]: whether a pixel is labelled, and its class, 0 where it is not."""
    valid = label != VOID
    return valid, jnp.where(valid, label, 0).astype(jnp.int32)  # VOID lies beyond the class axis
