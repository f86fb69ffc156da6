"""Words of a recipe, `RECIPE:WORD,...`: data set, size, and words specific to the recipe."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from segjax.configs import default
from segjax.errors import InputError, choose

# Data sets to train networks on; classical methods also take data sets of regions.
LABELLED = ("scenes", "camvid", "voc2012", "cityscapes", "ade20k", "folder", "lecture")
DATA_SETS = (*LABELLED, "bsds500")
_OPTIONS = {"lecture": {"val_count": 50, "channel": ""}}  # options of data sets besides their root

Values = Mapping[str, Any]
"""Dotted key -> value."""


@dataclasses.dataclass(frozen=True)
class Words:
    """The words given to a recipe.

    Attributes:
        data: the data set.
        size: "small", "paper" or, by default, "full"; "" on scenes and if nothing is trained.
        smoke: whether to shrink the run to seconds.
        own: words specific to the recipe, in alphabetical order.
    """

    data: str
    size: str = ""
    smoke: bool = False
    own: tuple[str, ...] = ()

    def __contains__(self, word: str) -> bool:
        return word in self.own

    def without(self, *words: str) -> "Words":
        """The same words without some that are specific to the recipe."""
        return dataclasses.replace(self, own=tuple(word for word in self.own if word not in words))

    def run_folder(self, recipe: str) -> str:
        """The default run folder of a recipe with these words."""
        size = [self.size] * (self.size in ("small", "paper"))
        return run_folder(recipe, ",".join([self.data, *size, *self.own, *["smoke"] * self.smoke]))


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The words that a recipe takes.

    Attributes:
        own: words specific to the recipe -> their effects.
        data: data sets that the recipe supports; the first is the default.
        paper: data sets with the training of the paper.
        trains: whether the recipe trains a network; only then it takes `small`.
        exclusive: groups of specific words that exclude each other.
    """

    own: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data: tuple[str, ...] = LABELLED
    paper: tuple[str, ...] = ()
    trains: bool = True
    exclusive: tuple[tuple[str, ...], ...] = ()

    def read(self, text: str) -> Words:
        """Parses "WORD,WORD,...", in any order.

        Raises:
            InputError: if a word is unknown, or words exclude each other.
        """
        words = sorted(set(_split(text)))
        for word in words:
            self._check_known(word)
        sets = [word for word in words if word in DATA_SETS]
        if len(sets) > 1:
            raise InputError(f"{', '.join(sets)}: one data set at a time.")
        data = sets[0] if sets else self.data[0]
        if data not in self.data:
            raise InputError(
                f"this recipe does not support {data}; it supports {', '.join(self.data)}."
            )
        if "paper" in words:
            self._check_paper(data, words)
        for group in self.exclusive:
            given = [word for word in words if word in group]
            if len(given) > 1:
                raise InputError(f"{', '.join(given)}: one of these words at a time.")
        size = next((word for word in ("paper", "small") if word in words), "full")
        if data == "scenes" or not self.trains:
            size = ""
        own = tuple(word for word in words if word in self.own)
        return Words(data, size, "smoke" in words, own)

    def known(self) -> tuple[str, ...]:
        """All words that the recipe takes."""
        sizes = ("small",) * self.trains + ("paper",) * bool(self.paper)
        return (*self.data, *sizes, "smoke", *self.own)

    def _check_known(self, word: str) -> None:
        if word in self.known() or word in DATA_SETS or word == "paper":
            return  # other data sets and `paper` are checked separately
        if word == "small":
            raise InputError("small: this recipe trains no network.")
        choose("word", word, self.known())

    def _check_paper(self, data: str, words: Sequence[str]) -> None:
        if not self.paper:
            raise InputError("paper: this recipe has no training from a paper.")
        if data not in self.paper:
            raise InputError(
                f"paper: its authors did not train on {data}; they trained on "
                f"{', '.join(self.paper)}."
            )
        if "small" in words:
            raise InputError("paper, small: one of these words at a time.")


def run_folder(recipe: str, text: str) -> str:
    """The default run folder; it does not depend on the order of the words.

    The data set comes first and `smoke` last; other words are in alphabetical order. `scenes`, and
    `small` without another data set, are left out, because they change nothing.
    """
    words = set(_split(text)) - {"scenes"}
    sets = sorted(words & set(DATA_SETS))
    words -= {"small"} if not sets else set()
    others = sorted(words - {*sets, "smoke"})
    return "-".join([f"runs/{recipe}", *sets, *others, *["smoke"] * ("smoke" in words)])


def apply(
    config: ml_collections.ConfigDict,
    words: Words,
    *,
    full: Values | None = None,
    small: Mapping[str, Values] | None = None,
    paper: Mapping[str, Values] | None = None,
    data: Mapping[str, Values] | None = None,
    own: Mapping[str, Values] | None = None,
    smoke: Values | None = None,
) -> ml_collections.ConfigDict:
    """Applies words to a recipe's config; later changes override earlier ones.

    Args:
        config: config of the recipe on the built-in scenes.
        words: result of `Vocabulary.read`.
        full: changes at full size, after `default.FULL`; they restore the full network.
        small: data set -> changes under `small`, in place of `default.SMALL`.
        paper: data set -> changes under `paper`.
        data: data set -> changes at every size but `paper`.
        own: word specific to the recipe -> its changes.
        smoke: changes under `smoke`, after `default.SMOKE`.
    """
    if words.data != config.data.name:
        # "": $SEGJAX_DATA/<name>
        config.data = {"name": words.data, "root": ""} | _OPTIONS.get(words.data, {})
    if words.size == "paper":
        default.change(config, (paper or {})[words.data])
    elif words.size == "full":
        default.change(config, default.FULL[words.data] | (full or {}))
    elif words.size == "small":
        default.change(config, (default.SMALL | (small or {}))[words.data])
    if words.size != "paper":
        default.change(config, (data or {}).get(words.data, {}))
    for word, values in (own or {}).items():
        if word in words:
            default.change(config, values)
    if words.smoke:
        default.change(config, default.SMOKE | (smoke or {}))
        if config.data.name == "scenes":
            config.data.size = (48, 64)
    return config


def check_weights(config: ml_collections.ConfigDict) -> None:
    """Checks that a training has the initial weights that it needs.

    Raises:
        InputError: naming the missing flags.
    """
    if config.init.needs and not config.init["from"]:
        raise InputError(
            f"config.init.from is empty, but this training starts from {config.init.needs}: give "
            "--config.init.from=PATH, a file here or in $SEGJAX_WEIGHTS or a run folder, or use "
            'random weights with --config.init.needs="".'
        )


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
