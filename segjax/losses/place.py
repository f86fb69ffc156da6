"""Where a loss is taken: at the image's pixels, or at the scores' own places."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from segjax.models import resize, row_blocks
from segjax.models.features import Scores

PLACES = ("image", "scores")


@dataclasses.dataclass(frozen=True)
class Place:
    """Scores, and the label that they are held against.

    Attributes:
        scores: of one output of the network.
        label: uint8 [B, H, W], classes or VOID.
        at_scores: whether `label` has been taken at the scores' places; they are not resized then.
        blocks: of rows.
    """

    scores: Scores
    label: jax.Array
    at_scores: bool
    blocks: int

    @classmethod
    def of(cls, scores: Scores, label: jax.Array, at: str, blocks: int) -> "Place":
        """The place that `at`, one of PLACES, names."""
        at_scores = at == "scores"
        return cls(scores, scores.sample(label) if at_scores else label, at_scores, blocks)

    def map(self, fn: Callable[[jax.Array, jax.Array], Any]) -> Any:
        """`fn(logits [B, r, W, K], label [B, r, W])` of every block of rows, results stacked."""
        if self.at_scores:
            found = fn(self.scores.values, self.label)
            return jax.tree.map(lambda x: x[None], found)
        return row_blocks.over(fn, self.scores, self.label, blocks=self.blocks)

    def pixels(self, fn: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
        """The same for what has a value a pixel: [B, H, W]."""
        return row_blocks.join(self.map(fn), self.label.shape[1])

    def one_class(self, index: jax.Array) -> jax.Array:
        """The logits of one class: float32 [B, H, W]."""
        values = jnp.take(self.scores.values, index, axis=-1)[..., None]
        if not self.at_scores:
            values = resize.brought(values, *self.scores.matrices(self.label.shape[1:]))
        return values[..., 0].astype(jnp.float32)
