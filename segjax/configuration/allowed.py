"""Allowed values of config keys: `Kind`, a check with its description, and `Key`."""

import dataclasses
import enum
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
        words: description of the allowed values, to follow "it must be".
        holds: value -> whether it is allowed.
    """

    words: str
    holds: Callable[[Any], bool]


class Change(enum.Enum):
    """The changes to a key that a resumed run may make."""

    NEVER = "it decides examples or numbers"
    GROWS = "a greater value continues the run"
    FREELY = "it says where things lie, or what is looked at or kept"


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of the config.

    Attributes:
        default: value unless a recipe sets it.
        kind: kind of its values.
        change: changes that a resumed run may make.
        free: for a group of keys that recipes replace whole: the keys in it that a resumed run may
            change.
    """

    default: Any
    kind: Kind
    change: Change = Change.NEVER
    free: tuple[str, ...] = ()


def whole(least: int = 0, most: int | None = None) -> Kind:
    """Whole numbers."""
    limits = f"from {least} on" if most is None else f"from {least} to {most}"

    def holds(value: Any) -> bool:
        integer = isinstance(value, int) and not isinstance(value, bool)
        return integer and value >= least and (most is None or value <= most)

    return Kind(f"a whole number {limits}", holds)


def number(
    least: float | None = None,
    most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> Kind:
    """Finite numbers within bounds: `least` and `most` are allowed, `above` and `below` are not.

    Whole ones are below 2^31, as JAX takes them for int32; larger ones are written as floats.
    """
    bounds = {
        "from {} on": (least, lambda x, bound: x >= bound),
        "above {}": (above, lambda x, bound: x > bound),
        "at most {}": (most, lambda x, bound: x <= bound),
        "below {}": (below, lambda x, bound: x < bound),
    }
    given = {text: pair for text, pair in bounds.items() if pair[0] is not None}
    limits = " and ".join(text.format(f"{bound:g}") for text, (bound, _) in given.items())

    def holds(value: Any) -> bool:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        finite = real and math.isfinite(value) and not too_long(value)
        return finite and all(inside(value, bound) for bound, inside in given.values())

    return Kind(f"a finite number {limits}".strip(), holds)


def too_long(value: Any) -> bool:
    """Whether a value is a whole number beyond those of int32."""
    return isinstance(value, int) and not -(2**31) <= value < 2**31


def flag() -> Kind:
    """True and False."""
    return Kind("True or False", lambda value: isinstance(value, bool))


def text(*, empty: bool = True) -> Kind:
    """Strings."""
    return Kind(
        "text" if empty else "text that is not empty",
        lambda value: isinstance(value, str) and (empty or bool(value.strip())),
    )


def choice(*values: str) -> Kind:
    """One of a few strings."""
    return Kind(
        "one of " + ", ".join(f'"{value}"' for value in values),
        lambda value: isinstance(value, str) and value in values,
    )


def step() -> Kind:
    """A checkpoint: "best", "latest", or its step."""

    def holds(value: Any) -> bool:
        named = isinstance(value, str) and bool(re.fullmatch(r"best|latest|\d+", value))
        return named or whole().holds(value)

    return Kind('"best", "latest" or a step\'s number', holds)


def several(kind: Kind, count: int, names: str = "") -> Kind:
    """Tuples of `count` values of one kind; `names` labels them, such as "(low, high)"."""

    def holds(value: Any) -> bool:
        sized = isinstance(value, tuple | list) and len(value) == count
        return sized and all(map(kind.holds, value))

    named = f" {names}" if names else ""
    return Kind(f"{count} values{named}, each {kind.words}", holds)


def row(*kinds: Kind) -> Kind:
    """Tuples with a value of each kind."""

    def holds(value: Any) -> bool:
        sized = isinstance(value, tuple | list) and len(value) == len(kinds)
        return sized and all(kind.holds(one) for kind, one in zip(kinds, value, strict=True))

    return Kind(f"({', '.join(kind.words for kind in kinds)})", holds)


def rows(words: str, kind: Kind) -> Kind:
    """Tuples of any number of values of one kind, described by `words`."""
    return Kind(
        words, lambda value: isinstance(value, tuple | list) and all(map(kind.holds, value))
    )


def either(*kinds: Kind) -> Kind:
    """Values of any of these kinds."""
    words = " or ".join(kind.words for kind in kinds)
    return Kind(words, lambda value: any(kind.holds(value) for kind in kinds))


def part(*names: str) -> Kind:
    """A group of keys that recipes replace whole; its other keys are checked by their consumer.

    Args:
        *names: required keys.
    """

    def holds(value: Any) -> bool:
        mapping = isinstance(value, Mapping | ml_collections.ConfigDict)
        return mapping and all(name in value for name in names)

    return Kind(f"a group of keys, {', '.join(names)} among them" if names else "options", holds)
