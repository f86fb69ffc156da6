"""A recipe's loss: the terms that `config.loss` names, as sums over a batch.

A term is a class whose parameters are its options and whose instances are called with a `Place`. It
gives the loss summed over the batch and the count that this is divided by, both float32 []; the
sums of the parts of a batch must be those of the batch. A term counts labelled pixels, or images if
it has the class attribute `counts = "images"`. A term of pixels with an option:

    @dataclasses.dataclass(frozen=True)
    class Generalised:
        q: float = 0.7

        def __call__(self, place):
            def of_pixels(logits, label):  # of a block of rows: [B, r, W, K] and [B, r, W]
                nll = pixels.cross_entropy(logits, label)
                return jnp.where(label == VOID, 0, (1 - jnp.exp(-self.q * nll)) / self.q)

            return place.sum_pixels(of_pixels)

Adding one of ours is its file and its line in LOSSES; `config.loss.name = "my_losses:Generalised"`
takes one from a module that lies where the command runs, with `config.loss.options = {"q": 0.5}`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from segjax import registry
from segjax.errors import InputError, choose
from segjax.losses.cross_entropy import CrossEntropy
from segjax.losses.dice import Dice
from segjax.losses.focal import Focal
from segjax.losses.lovasz_softmax import LovaszSoftmax
from segjax.losses.ohem import Ohem
from segjax.losses.place import PLACES, Place
from segjax.models.features import Scores

LOSSES = {
    "cross_entropy": CrossEntropy,
    "ohem": Ohem,
    "focal": Focal,
    "dice": Dice,
    "lovasz_softmax": LovaszSoftmax,
}
REDUCTIONS = ("mean_valid", "mean_weighted", "sum")

_KEY = "config.loss"


class Term(Protocol):
    """One of the losses that a recipe adds up."""

    def __call__(self, place: Place) -> tuple[jax.Array, jax.Array]:
        """The summed loss of a batch, and the count that it is divided by: float32 [] each."""


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss of a training step. `build` makes one from a config.

    Attributes:
        name, term: the first term and its name.
        also: (name, term, weight) of the added terms. The mean of each is taken separately, times
            its weight.
        class_weights: one weight per class, or None.
        reduction: divisor of the sum, see `build`.
        aux_weight: weight of every output of the network but the first.
        blocks: the number of row blocks.
        at: one of PLACES.
    """

    name: str
    term: Term
    also: tuple[tuple[str, Term, float], ...]
    class_weights: tuple[float, ...] | None
    reduction: str
    aux_weight: float
    blocks: int
    at: str

    def total(
        self, outputs: tuple[Scores, ...], label: jax.Array, counts: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The summed loss of a batch, and the count that it is divided by.

        Every term of every output has its own count: divided by `divisor`, the result is the first
        term's mean at the first output plus the weighted means of all others. Results of the parts
        of a batch add up to those of the batch, over devices and in time; but `ohem` takes its
        share of each part.

        Args:
            outputs: the first is the prediction.
            label: uint8 [B, H, W], classes or VOID.
            counts: sum of `counts` over all parts, if this is a part of a batch.

        Returns:
            float32 [], and float32 [], the first term's count at the first output.
        """
        sums, own = self._sums(outputs, label)
        counts = _positive(jax.lax.stop_gradient(own if counts is None else counts))
        by_output = [1.0] + [self.aux_weight] * (len(outputs) - 1)
        by_term = [1.0, *(weight for _, _, weight in self.also)]
        weights = np.outer(by_output, by_term).astype(np.float32)
        return jnp.sum(weights * sums * (counts[0, 0] / counts)), own[0, 0]

    def counts(self, outputs: tuple[Scores, ...], label: jax.Array) -> jax.Array:
        """The counts of a batch or a part of it: float32 [outputs, terms]. Arguments: `total`."""
        return self._sums(outputs, label)[1]

    def divisor(self, count: jax.Array) -> jax.Array:
        """The number that the summed loss and its gradient are divided by; never 0."""
        return jnp.ones_like(count) if self.reduction == "sum" else _positive(count)

    def _sums(self, outputs: tuple[Scores, ...], label: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The sums and the counts: float32 [outputs, terms] each."""
        places = [self._place(scores, label) for scores in outputs]
        terms = [(self.name, self.term), *((name, term) for name, term, _ in self.also)]
        pairs = [[_sums(name, term, place) for name, term in terms] for place in places]
        sums, counts = (
            jnp.stack([jnp.stack([p[i] for p in row]) for row in pairs]) for i in (0, 1)
        )
        return sums, counts

    def _place(self, scores: Scores, label: jax.Array) -> Place:
        at_scores = self.at == "scores"
        return Place(
            scores,
            scores.sample(label) if at_scores else label,
            at_scores,
            self.blocks,
            None if self.class_weights is None else jnp.asarray(self.class_weights),
            self.reduction == "mean_weighted",
        )


def _positive(count: jax.Array) -> jax.Array:
    return jnp.where(count > 0, count, 1)


def _sums(name: str, term: Term, place: Place) -> tuple[jax.Array, jax.Array]:
    """The two sums of a term.

    Raises:
        InputError: if it gives anything else.
    """
    sums = term(place)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(sums)]
    if not isinstance(sums, tuple) or shapes != [(), ()]:
        raise InputError(
            f"config.loss: {name} gives arrays of shape {shapes}; a loss gives the pair "
            "(summed loss, count) of numbers."
        )
    return sums


def build(
    *,
    class_weights: Sequence[float] | None,
    name: str = "cross_entropy",
    also: Sequence[tuple[str, float]] = (),
    reduction: str = "mean_valid",
    aux_weight: float = 0.0,
    blocks: int = 1,
    at: str = "image",
    options: Mapping[str, Any] | None = None,
    **named: Any,
) -> Loss:
    """The loss that `config.loss` describes.

    Args:
        class_weights: one a class, or None.
        name: of the first term: one of LOSSES, or "module:Name".
        also: (name, weight) of the terms that are added to it.
        reduction: what a sum is divided by. "mean_valid": its own count, labelled pixels
            (those kept, of "ohem") or images of the global batch; class weights do not enter, as in
            SegNet's release. "mean_weighted": the sum of the pixels' class weights, as in PyTorch.
            "sum": nothing, the unnormalised loss of the FCN release; outputs and terms keep the
            weights that they have as means, and all are multiplied by the first term's count.
        aux_weight: weight of the mean of every output of the network but the first.
        blocks: the number of row blocks, for upsampling and softmax.
        at: "image", scores are resized to the label; "scores", each output is compared with the
            label sampled at its scores (DeepLab v1 and v2).
        options: of all terms; each gets those that it takes.
        **named: the options of our terms that are keys of `config.loss` themselves, such as
            `focal_gamma`; each reaches the terms that take it.

    Raises:
        InputError: on a name, an option or a value that is not allowed.
    """
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in also):
        raise InputError(f'config.loss.also: pairs such as (("dice", 1.0),), got {also}.')
    choose("config.loss.reduction", reduction, REDUCTIONS)
    choose("config.loss.at", at, PLACES)
    if blocks < 1:
        raise InputError(f"config.loss.blocks is at least 1, got {blocks}.")
    classes = {name: registry.find(LOSSES, name, "config.loss.name")}
    classes |= {more: registry.find(LOSSES, more, "config.loss.also") for more, _ in also}
    terms = _terms(classes, dict(options or {}), named)
    if reduction == "mean_weighted" and getattr(terms[name], "counts", "pixels") != "pixels":
        raise InputError(
            f"config.loss.reduction: mean_weighted is for losses of pixels, not for {name}."
        )
    return Loss(
        name,
        terms[name],
        tuple((more, terms[more], weight) for more, weight in also),
        None if class_weights is None else tuple(class_weights),
        reduction,
        aux_weight,
        blocks,
        at,
    )


def _terms(
    classes: Mapping[str, Callable[..., Term]], options: Mapping[str, Any], named: Mapping[str, Any]
) -> dict[str, Term]:
    """The terms with their options: name -> term."""
    registry.deal(named, {name: _options_of(name, cls) for name, cls in LOSSES.items()}, _KEY)
    known = {name: _options_of(name, cls) for name, cls in classes.items()}
    if named.get("label_smoothing") and not any("label_smoothing" in one for one in known.values()):
        raise InputError(f"{_KEY}.label_smoothing: {', '.join(classes)} takes no such option.")
    dealt = registry.deal(options, known, f"{_KEY}.options")
    terms = {}
    for name, cls in classes.items():
        key = f"{_KEY}.options"
        terms[name] = registry.bind(cls, dealt[name], key, name=name, offered=named)()
        if not callable(terms[name]):
            raise InputError(f"{_KEY}: {name} makes a {type(terms[name]).__name__}, not a loss.")
    return terms


def _options_of(name: str, cls: Callable[..., Term]) -> dict[str, bool]:
    return registry.option_names(cls, name, _KEY)
