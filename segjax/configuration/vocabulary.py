"""The words of `RECIPE:WORD,...`: the data set, how much is cut, and the recipe's own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from segjax.configs import default
from segjax.errors import InputError, choose

# What a network can be trained on; the methods before deep learning take sets of regions, too.
LABELLED = ("scenes", "camvid", "voc2012", "cityscapes", "ade20k", "folder", "lecture")
DATA_SETS = (*LABELLED, "bsds500")
_OPTIONS = {"lecture": {"val_count": 50, "channel": ""}}  # of data sets, beside their root

Values = Mapping[str, Any]
"""Dotted key -> value."""


@dataclasses.dataclass(frozen=True)
class Words:
    """The words that a recipe was given.

    Attributes:
        data: the data set.
        size: "small", "paper", "full" where neither is given, or "" where nothing changes: on
            scenes, and where nothing is trained.
        smoke: whether all is shrunk to seconds.
        own: the recipe's own words, alphabetical.
    """

    data: str
    size: str = ""
    smoke: bool = False
    own: tuple[str, ...] = ()

    def __contains__(self, word: str) -> bool:
        return word in self.own

    def without(self, *words: str) -> "Words":
        """The same without some of the recipe's own words."""
        return dataclasses.replace(self, own=tuple(word for word in self.own if word not in words))

    def run_folder(self, recipe: str) -> str:
        """The default run folder of a recipe under these words."""
        size = [self.size] * (self.size in ("small", "paper"))
        return run_folder(recipe, ",".join([self.data, *size, *self.own, *["smoke"] * self.smoke]))


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The words that a recipe takes.

    Attributes:
        own: the recipe's own words, and what each does.
        data: the data sets that it is set up for; without a word it is the first.
        paper: those that the paper trained on.
        trains: whether it trains a network, so that `small` means something.
        exclusive: groups of its own words, one of each at a time.
    """

    own: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data: tuple[str, ...] = LABELLED
    paper: tuple[str, ...] = ()
    trains: bool = True
    exclusive: tuple[tuple[str, ...], ...] = ()

    def read(self, text: str) -> Words:
        """Reads "WORD,WORD,...", in any order.

        Raises:
            InputError: on a word that is not known, or words that do not go together.
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
                f"this recipe is not set up for {data}; it goes with {', '.join(self.data)}."
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
        """Every word that the recipe takes."""
        sizes = ("small",) * self.trains + ("paper",) * bool(self.paper)
        return (*self.data, *sizes, "smoke", *self.own)

    def _check_known(self, word: str) -> None:
        if word in self.known() or word in DATA_SETS or word == "paper":
            return  # other data sets and `paper` have errors of their own
        if word == "small":
            raise InputError("small: this recipe trains nothing that could be cut.")
        choose("word", word, self.known())

    def _check_paper(self, data: str, words: Sequence[str]) -> None:
        if not self.paper:
            raise InputError("paper: this recipe has no training of a paper's.")
        if data not in self.paper:
            raise InputError(
                f"paper: its authors did not train on {data}; they trained on "
                f"{', '.join(self.paper)}."
            )
        if "small" in words:
            raise InputError("paper, small: one of these words at a time.")


def run_folder(recipe: str, text: str) -> str:
    """The default run folder: the same for the same words, in whatever order.

    The data set comes first and `smoke` last, the others are alphabetical. Scenes and their cut
    are what a recipe is without words.
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
    """Changes a recipe's config on the scenes to what the words say; the last change counts.

    Args:
        config: the recipe on the embedded scenes.
        words: of `Vocabulary.read`.
        full: on a data set at full size, after `default.FULL`: what the cut took from the network.
        small: data set -> what `small` changes there, in place of `default.SMALL`.
        paper: data set -> the paper's training.
        data: data set -> what the recipe changes there in any case but under `paper`.
        own: the recipe's own words.
        smoke: what `smoke` changes, after `default.SMOKE`.
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
    """Checks that a training which must start from weights has them.

    Raises:
        InputError: naming the flags to give.
    """
    if config.init.needs and not config.init["from"]:
        raise InputError(
            f"config.init.from is empty, but this training starts from {config.init.needs}: give "
            "--config.init.from=PATH, a file here or in $SEGJAX_WEIGHTS or a run folder, or draw "
            'all weights with --config.init.needs="".'
        )


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
