"""Focal loss: cross-entropy in which pixels that are right already weigh little."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from segjax.errors import InputError
from segjax.losses import pixels
from segjax.losses.place import Place


@dataclasses.dataclass(frozen=True)
class Focal:
    """The focal loss of every labelled pixel.

    Attributes:
        focal_gamma: the exponent, from 0 on.
    """

    focal_gamma: float = 2.0

    def __post_init__(self) -> None:
        if not self.focal_gamma >= 0:
            raise InputError(f"config.loss.focal_gamma is at least 0, got {self.focal_gamma}.")

    def __call__(self, place: Place) -> tuple[jax.Array, jax.Array]:
        """Summed loss and count: float32 [] and float32 []."""
        return place.sum_pixels(
            lambda logits, label: focal(logits, label, place.class_weights, gamma=self.focal_gamma)
        )


def focal(
    logits: jax.Array, label: jax.Array, class_weights: jax.Array | None = None, *, gamma: float
) -> jax.Array:
    """(1 - p)^gamma times cross-entropy, p the probability of the truth.

    Lin, Goyal, Girshick, He, Dollár: Focal Loss for Dense Object Detection, ICCV 2017, section 3.2,
    over a softmax; alpha are the class weights. Arguments and result as of `pixels.cross_entropy`.
    """
    logits = logits.astype(jnp.float32)
    _, target = pixels.targets(label)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    # 1 - p without the cancellation where p is near 1; the floor keeps the power's slope finite.
    other = jnp.maximum(-jnp.expm1(-nll), jnp.finfo(jnp.float32).tiny)
    return other**gamma * pixels.cross_entropy(logits, label, class_weights)
