"""The scores and the label that a loss compares: at the image's pixels, or at the scores'."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from segjax.data.spec import VOID
from segjax.losses import pixels
from segjax.models import resize, row_blocks
from segjax.models.features import Scores

PLACES = ("image", "scores")


@dataclasses.dataclass(frozen=True)
class Place:
    """Scores, the label that they are compared with, and the weights of the classes.

    Attributes:
        scores: one output of the network.
        label: uint8 [B, H, W], classes or VOID.
        at_scores: whether `label` was sampled at the scores' places; they are not resized then.
        blocks: the number of row blocks that the image is worked off in.
        class_weights: float32 [K], or None.
        weighted_count: whether a pixel counts with the weight of its class.
    """

    scores: Scores
    label: jax.Array
    at_scores: bool
    blocks: int
    class_weights: jax.Array | None = None
    weighted_count: bool = False

    def map(self, fn: Callable[[jax.Array, jax.Array], Any]) -> Any:
        """`fn(logits [B, r, W, K], label [B, r, W])` of every block of rows, results stacked.

        Logits of the image are upsampled inside and recomputed in the backward pass, so that no
        more than a block of them is held.
        """
        if self.at_scores:
            result = fn(self.scores.values, self.label)
            return jax.tree.map(lambda x: x[None], result)
        return row_blocks.over(fn, self.scores, self.label, blocks=self.blocks)

    def pixels(self, fn: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
        """`fn(logits, label) -> [B, r, W]` of every block of rows, put together: [B, H, W]."""
        return row_blocks.join(self.map(fn), self.label.shape[1])

    def one_class(self, index: jax.Array) -> jax.Array:
        """The logits of one class: float32 [B, H, W]."""
        values = jnp.take(self.scores.values, index, axis=-1)[..., None]
        height, width = self.label.shape[1:]
        if not self.at_scores:
            values = resize.apply_or_crop(values, *self.scores.matrices((height, width)))
        return values[..., 0].astype(jnp.float32)

    def sum_pixels(
        self, fn: Callable[[jax.Array, jax.Array], jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """The result of a loss of pixels.

        Args:
            fn: (logits [B, r, W, K], label [B, r, W]) -> float32 [B, r, W], 0 at VOID.

        Returns:
            float32 [], the sum; float32 [], the labelled pixels or the sum of their weights.
        """
        weights = self.class_weights if self.weighted_count else None

        loss = self.map(lambda logits, label: jnp.sum(fn(logits, label)))
        return loss.sum(), pixels.count(self.label, weights)

    def sum_images(self, loss: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The result of a loss of images.

        Args:
            loss: float32 [B], 0 for an image without a labelled pixel.

        Returns:
            float32 [], the sum; float32 [], the images with a labelled pixel.
        """
        counted = jnp.any(self.label != VOID, axis=(1, 2))
        return jnp.sum(loss), jnp.sum(counted, dtype=jnp.float32)
