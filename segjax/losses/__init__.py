"""A recipe's loss: what `config.loss` says, as sums that any split of a batch adds up to."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from segjax.data.spec import VOID
from segjax.errors import InputError, choose
from segjax.losses import overlap, pixels
from segjax.losses.place import PLACES, Place
from segjax.models.features import Scores

LOSSES = ("cross_entropy", "ohem", "focal", "dice", "lovasz_softmax")
REDUCTIONS = ("mean_valid", "mean_weighted", "sum")
_OF_IMAGES = ("dice", "lovasz_softmax")


@dataclasses.dataclass(frozen=True)
class Loss:
    """`config.loss`, with the class weights that it names.

    Attributes:
        name: one of LOSSES: see `pixels` and `regions`. "ohem" is the cross-entropy of the pixels
            that `pixels.hard_pixels` keeps.
        also: (name, weight) of further losses. Each is a mean of its own, times the weight; with
            `accumulate` above 1 the mean over its parts.
        reduction: what the sum is divided by. "mean_valid": the labelled pixels (those kept, of
            "ohem"; the images that have any, of "dice" and "lovasz_softmax") of the global batch;
            class weights do not enter, as in SegNet's release. "mean_weighted": the sum of their
            weights, as in PyTorch. "sum": nothing, the unnormalised loss of the FCN release.
        class_weights: one a class, or None.
        aux_weight: of every output but the first.
        blocks: of rows.
        at: "image", scores are brought to the label; "scores", each output is held against the
            label at its own places (DeepLab v1 and v2). A grid of fewer places than the first's
            then counts in proportion more, as if each output had a mean of its own.
        label_smoothing: of "cross_entropy" and "ohem", 0 to 1.
        focal_gamma: of "focal", from 0 on.
        ohem_threshold, ohem_share: of "ohem", 0 to 1.
        region_classes: of "dice" and "lovasz_softmax", one of `regions.CLASSES`.
    """

    class_weights: tuple[float, ...] | None
    name: str = "cross_entropy"
    also: tuple[tuple[str, float], ...] = ()
    reduction: str = "mean_valid"
    aux_weight: float = 0.0
    blocks: int = 1
    at: str = "image"
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    ohem_threshold: float = 0.7
    ohem_share: float = 1 / 16
    region_classes: str = "present"

    def __post_init__(self):
        if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in self.also):
            raise InputError(f'config.loss.also: pairs such as (("dice", 1.0),), got {self.also}.')
        names = [self.name, *(name for name, _ in self.also)]
        for name in names:
            choose("config.loss.name" if name == self.name else "config.loss.also", name, LOSSES)
        choose("config.loss.reduction", self.reduction, REDUCTIONS)
        choose("config.loss.at", self.at, PLACES)
        choose("config.loss.region_classes", self.region_classes, overlap.CLASSES)
        if self.blocks < 1:
            raise InputError(f"config.loss.blocks is at least 1, got {self.blocks}.")
        if self.focal_gamma < 0:
            raise InputError(f"config.loss.focal_gamma is at least 0, got {self.focal_gamma}.")
        for key in ("label_smoothing", "ohem_threshold", "ohem_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise InputError(f"config.loss.{key} is 0 to 1, got {getattr(self, key)}.")
        if self.label_smoothing and not {"cross_entropy", "ohem"} & set(names):
            raise InputError(
                "config.loss.label_smoothing is of cross_entropy and ohem; the loss is "
                f"{', '.join(names)}."
            )
        if self.reduction == "mean_weighted" and self.name in _OF_IMAGES:
            raise InputError(
                f"config.loss.reduction: mean_weighted is of losses of pixels, not of {self.name}."
            )

    def total(self, outputs: tuple[Scores, ...], label: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The loss of a batch, summed, and the count that it is divided by.

        Both are sums over the batch, so that any split of it, over devices or in time, adds up to
        the same numbers; but `ohem` takes its share of each part. The count is the first output's.

        Args:
            outputs: the first is the prediction.
            label: uint8 [B, H, W], classes or VOID.

        Returns:
            float32 [] and float32 [].
        """
        loss, count = self._of_output(outputs[0], label)
        places = math.prod(outputs[0].values.shape[1:3])
        for scores in outputs[1:]:
            more = places / math.prod(scores.values.shape[1:3]) if self.at == "scores" else 1.0
            loss = loss + self.aux_weight * more * self._of_output(scores, label)[0]
        return loss, count

    def divisor(self, count: jax.Array) -> jax.Array:
        """What the summed loss and its gradient are divided by; never 0."""
        if self.reduction == "sum":
            return jnp.ones_like(count)
        return jnp.where(count > 0, count, 1)

    def _of_output(self, scores: Scores, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        place = Place.of(scores, label, self.at, self.blocks)
        loss, count = self._of_name(self.name, place)
        for name, weight in self.also:
            more, own = self._of_name(name, place)
            loss = loss + weight * more / jnp.where(own > 0, own, 1) * count
        return loss, count

    def _of_name(self, name: str, place: Place) -> tuple[jax.Array, jax.Array]:
        """One loss, summed, and its count."""
        weights = None if self.class_weights is None else jnp.asarray(self.class_weights)
        if name in _OF_IMAGES:
            fn = overlap.dice if name == "dice" else overlap.lovasz_softmax
            loss = fn(place, weights, classes=self.region_classes)
            counted = jnp.any(place.label != VOID, axis=(1, 2))
            return jnp.sum(loss), jnp.sum(counted, dtype=jnp.float32)
        if name == "ohem":
            hard = pixels.hard_pixels(place, threshold=self.ohem_threshold, share=self.ohem_share)
            place = dataclasses.replace(place, label=hard)
        weighted = weights if self.reduction == "mean_weighted" else None

        def block(logits, label):
            if name == "focal":
                loss = pixels.focal(logits, label, weights, gamma=self.focal_gamma)
            else:
                loss = pixels.cross_entropy(logits, label, weights, smoothing=self.label_smoothing)
            return jnp.sum(loss), pixels.count(label, weighted)

        loss, count = place.map(block)
        return loss.sum(), count.sum()
