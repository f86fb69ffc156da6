"""The cross-entropy of an evaluation, with class weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from segjax.data.spec import DatasetSpec
from segjax.losses import pixels as pixel_losses
from segjax.metrics.metric import Counts, Metric, Pixels


class CrossEntropy(Metric):
    """Cross-entropy per labelled pixel, in nats.

    Args:
        spec: the classes.
        class_weights: class weights of the loss, or None.
    """

    name = "cross_entropy"

    def __init__(self, spec: DatasetSpec, class_weights: tuple[float, ...] | None = None):
        super().__init__(spec)
        self.class_weights = class_weights

    def count(self, pixels: Pixels) -> dict[str, jax.Array]:
        """`loss` float32 [], the sum; `pixels` int32 [], the number of labelled pixels."""
        weights = None if self.class_weights is None else jnp.asarray(self.class_weights)
        loss = pixel_losses.cross_entropy(pixels.logits, pixels.label, weights)
        return {"loss": jnp.sum(loss), "pixels": jnp.sum(pixels.valid, dtype=jnp.int32)}

    def scores(self, total: Counts) -> dict[str, float]:
        """`loss`, the mean over labelled pixels."""
        pixels = float(total["pixels"])
        return {"loss": float(total["loss"]) / pixels if pixels else float(np.nan)}

    def describe(self, total: Counts, images: Counts) -> tuple[str, dict[str, Any]]:
        """The loss in words."""
        return f"loss {self.scores(total)['loss']:.4f}", {}
