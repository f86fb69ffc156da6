"""Softmax cross-entropy over all labelled pixels."""

import dataclasses

import jax

from segjax.losses import pixels
from segjax.losses.options import check_share
from segjax.losses.place import Place


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """The cross-entropy of every labelled pixel, see `pixels.cross_entropy`.

    Attributes:
        label_smoothing: share of the target that is spread over all classes, 0 to 1.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_share("label_smoothing", self.label_smoothing)

    def __call__(self, place: Place) -> tuple[jax.Array, jax.Array]:
        """Summed loss and count: float32 [] and float32 []."""
        return place.sum_pixels(
            lambda logits, label: pixels.cross_entropy(
                logits, label, place.class_weights, smoothing=self.label_smoothing
            )
        )
