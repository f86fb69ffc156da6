"""Work on every pixel's scores in blocks of rows, so that no full-size score map is ever held."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from segjax.data.spec import VOID
from segjax.models import resize
from segjax.models.features import Scores


def over(
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
    block's logits, never [B, H, W, K]. Scores that are the image's own pixels are not resized.

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
    values, label = scores.values, jnp.pad(label, _fill_of(1, fill, 3), constant_values=VOID)
    by_block = [_split(label, 1, blocks)]
    own_pixels = resize.keeps_pixels(rows, cols)
    if own_pixels:
        values = jnp.pad(values[:, :height, :width], _fill_of(1, fill, 4))
        by_block.append(_split(values, 1, blocks))
    else:
        by_block.append(_split(jnp.pad(rows, _fill_of(0, fill, 2)), 0, blocks))

    @jax.checkpoint
    def block(values, label, part):
        if own_pixels:
            return fn(part.astype(jnp.float32), label)
        return fn(resize.apply(values, part, cols), label)

    def body(_, row_block):
        return None, block(None if own_pixels else values, *row_block)

    return jax.lax.scan(body, None, tuple(by_block))[1]


def join(blocks: jax.Array, height: int) -> jax.Array:
    """Puts per-pixel results of `over` in order: [n, B, r, W, ...] -> [B, height, W, ...]."""
    joined = jnp.moveaxis(blocks, 0, 2)
    return joined.reshape(joined.shape[0], -1, *joined.shape[3:])[:, :height]


def _fill_of(axis: int, count: int, ndim: int) -> list[tuple[int, int]]:
    """Padding behind one axis."""
    return [(0, count if i == axis else 0) for i in range(ndim)]


def _split(x: jax.Array, axis: int, blocks: int) -> jax.Array:
    """Every n-th row of an axis together: [..., H, ...] -> [n, ..., H / n, ...]."""
    shape = (*x.shape[:axis], -1, blocks, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis + 1, 0)
