"""Losses over the whole image, in blocks of rows so that no full-size score map is ever held."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from segjax.data.spec import VOID
from segjax.models import resize
from segjax.models.features import Scores

REDUCTIONS = ("mean_valid", "sum")
PLACES = ("image", "scores")


def over_row_blocks(
    fn: Callable[[jax.Array, jax.Array], Any],
    scores: Scores,
    label: jax.Array,
    *,
    blocks: int,
    seen: tuple[int, int] | None = None,
) -> Any:
    """Scans `fn(logits [B, r, W, K], label [B, r, W])` over blocks of r rows of the image.

    Block i holds the rows i, i + n, i + 2n ... of n blocks: where the image's height is split over
    devices, every device has its part of every block. Rows added to fill the last block are VOID.
    Upsampling happens inside, and the way back computes it again: the largest temporary is one
    block's logits, never [B, H, W, K].

    Args:
        fn: of one block; its results are stacked along a new first axis.
        scores: the head's scores and how they come to the image.
        label: uint8 [B, H, W]; its size is the size that the scores are brought to.
        blocks: n, cut to H.
        seen: size of the network's input, where it is not the label's.

    Returns:
        What `fn` returns, with a leading axis of n.
    """
    height, width = label.shape[1:]
    rows, cols = scores.matrices((height, width), seen)
    blocks = min(blocks, height)
    fill = -height % blocks
    label = jnp.pad(label, ((0, 0), (0, fill), (0, 0)), constant_values=VOID)
    rows = jnp.pad(rows, ((0, fill), (0, 0))).reshape(-1, blocks, rows.shape[1])
    label = label.reshape(label.shape[0], -1, blocks, width)

    @jax.checkpoint
    def block(values, rows, label):
        return fn(resize.apply(values, rows, cols), label)

    def body(_, row_block):
        return None, block(scores.values, *row_block)

    _, results = jax.lax.scan(body, None, (rows.swapaxes(0, 1), label.transpose(2, 0, 1, 3)))
    return results


def join_rows(blocks: jax.Array, height: int) -> jax.Array:
    """Puts per-pixel results of `over_row_blocks` in order: [n, B, r, W] -> [B, height, W]."""
    joined = blocks.transpose(1, 2, 0, 3)
    return joined.reshape(joined.shape[0], -1, joined.shape[-1])[:, :height]


def cross_entropy(
    logits: jax.Array, label: jax.Array, class_weights: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Softmax cross-entropy, summed, and the number of valid pixels.

    Args:
        logits: [B, H, W, K], taken to float32.
        label: uint8 [B, H, W], classes or VOID.
        class_weights: float32 [K], each pixel's loss times the weight of its class.

    Returns:
        float32 [] and float32 []. VOID pixels count in neither.
    """
    valid = label != VOID
    target = jnp.where(valid, label, 0).astype(jnp.int32)  # VOID would index past the class axis
    loss = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), target)
    if class_weights is not None:
        loss = loss * jnp.take(class_weights, target)
    return jnp.sum(loss * valid), jnp.sum(valid, dtype=jnp.float32)


def total(
    outputs: tuple[Scores, ...],
    label: jax.Array,
    *,
    class_weights: jax.Array | None,
    aux_weight: float,
    blocks: int,
    at: str = "image",
) -> tuple[jax.Array, jax.Array]:
    """The recipe's loss over a batch as a sum, and the count it is divided by.

    The first output is the prediction, the others count `aux_weight` each. Both results are sums,
    so that any split of the batch, over devices or in time, adds up to the same number.

    Where the loss is taken `at` "image", scores are brought to the label; at "scores", each output
    is held against the label at its own places (DeepLab v1 and v2). A grid of fewer places than
    the first's then counts in proportion more, as if each output had a mean of its own.
    """

    def summed(scores: Scores) -> tuple[jax.Array, jax.Array]:
        def fn(logits, label):
            return cross_entropy(logits, label, class_weights)

        if at == "scores":
            return fn(scores.values, scores.sample(label))
        loss, count = over_row_blocks(fn, scores, label, blocks=blocks)
        return loss.sum(), count.sum()

    loss, count = summed(outputs[0])
    places = math.prod(outputs[0].values.shape[1:3])
    for scores in outputs[1:]:
        more = places / math.prod(scores.values.shape[1:3]) if at == "scores" else 1.0
        loss = loss + aux_weight * more * summed(scores)[0]
    return loss, count


def divisor(reduction: str, count: jax.Array) -> jax.Array:
    """What the summed loss and its gradient are divided by.

    "mean_valid": the valid pixels of the global batch, at least 1; "sum": 1, the unnormalised loss
    of the FCN release.
    """
    return jnp.maximum(count, 1) if reduction == "mean_valid" else jnp.ones_like(count)
