"""Per-pixel work on scores in blocks of rows, so that no full-size score map is ever in memory."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax import strips
from segjax.data.spec import VOID
from segjax.models import resize, separable
from segjax.models.features import Scores

KEPT = "of every pixel"
"""The name, for `checkpoint_name`, of numbers [B, r, W] that are kept for the backward pass."""


def over(
    fn: Callable[[jax.Array, jax.Array], Any],
    scores: Scores,
    label: jax.Array,
    *,
    blocks: int,
    seen: tuple[int, int] | None = None,
) -> Any:
    """Runs `fn` on blocks of r rows of the image, one block after the other.

    Block i of n holds the rows i, i + n, i + 2n ...: if the image's height is split over devices,
    every device holds a part of every block. Rows that fill the last block are VOID. Each block
    upsamples its scores, and the backward pass recomputes them: the largest temporary is the
    logits of one block, never [B, H, W, K]. Scores that lie on the image's pixels are not resized.

    Args:
        fn: (logits float32 [B, r, W, K], label uint8 [B, r, W]) -> arrays.
        scores: scores of a head.
        label: uint8 [B, H, W]; the scores are brought to its size.
        blocks: n, 1 or more; larger numbers than H count as H.
        seen: size of the network's input; None: that of the label.

    Returns:
        The results of `fn`, stacked along a new first axis of n.
    """
    height, width = label.shape[1:]
    rows, cols = scores.matrices((height, width), seen)
    blocks = min(blocks, height)
    fill = -height % (blocks * strips.count())
    values, label = scores.values, jnp.pad(label, _pad_end(1, fill, 3), constant_values=VOID)
    by_block = [_split(label, 1, blocks)]
    on_pixels = resize.keeps_pixels(rows, cols)
    if on_pixels:
        values = jnp.pad(values[:, :height, :width], _pad_end(1, fill, 4))
        by_block.append(_split(values, 1, blocks))
    else:
        rows = np.pad(rows, _pad_end(0, fill, 2))
        bands = strips.bands_of(rows)
        if bands is None:
            values = strips.whole(values)
        else:
            rows, values = bands.rows, bands.bring(values)
        by_block.append(_split(jnp.asarray(rows), 0, blocks))
    split_axes = (2, 2 if on_pixels else 1)
    by_block = [strips.split(x, axis) for x, axis in zip(by_block, split_axes, strict=True)]

    @functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(KEPT))
    def block(values, label, part):
        if on_pixels:
            return fn(part.astype(jnp.float32), label)
        down = strips.product if bands is None else strips.weighed
        return fn(separable.across(down(part, values.astype(jnp.float32)), cols), label)

    def body(_, row_block):
        return None, block(None if on_pixels else values, *row_block)

    return jax.lax.scan(body, None, tuple(by_block))[1]


def join(blocks: jax.Array, height: int) -> jax.Array:
    """Puts the rows of `over`'s results in order: [n, B, r, W, ...] -> [B, height, W, ...]."""
    joined = jnp.moveaxis(blocks, 0, 2)
    return joined.reshape(joined.shape[0], -1, *joined.shape[3:])[:, :height]


def _pad_end(axis: int, count: int, ndim: int) -> list[tuple[int, int]]:
    """Widths for `jnp.pad` that add `count` entries at the end of one axis."""
    return [(0, count if i == axis else 0) for i in range(ndim)]


def _split(x: jax.Array, axis: int, blocks: int) -> jax.Array:
    """Collects every n-th row of an axis into one block: [..., H, ...] -> [n, ..., H / n, ...]."""
    shape = (*x.shape[:axis], -1, blocks, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis + 1, 0)
