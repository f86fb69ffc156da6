"""Checks of a config: each value, values together, and the changes that a resume may make."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from segjax.configs import default
from segjax.configuration import allowed
from segjax.configuration.allowed import Change
from segjax.errors import InputError, near

_SMALLEST_SCALE = 1 / 16  # of images before the crop
_LARGEST_SCALE = 16  # the program that warps by more takes minutes to compile


def check(config: ml_collections.ConfigDict) -> None:
    """Checks the value of every key, except options of a network, method, data set or CRF.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    values = dict(_leaves(config))
    for name, value in values.items():
        if not is_key(name):
            raise InputError(f"config.{name} is not a key.{near(name, default.KEYS)}")
        if not default.KEYS[name].kind.holds(value):
            raise InputError(complaint(name, value))
    for name in default.KEYS:
        if name not in values:
            raise InputError(f"config.{name} is missing.")
    _check_together(values)


def is_key(name: str) -> bool:
    """Whether a dotted name is a key whose value `check` checks."""
    return name in default.KEYS


def complaint(name: str, value: Any) -> str:
    """The error message for a value that is not allowed."""
    words = default.KEYS[name].kind.words
    if allowed.too_long(value) and "finite number" in words:
        words += f", such as {float(value)!r}"
    return f"config.{name} is {shown(value)}; it must be {words}."


def fill(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Updates a stored config to the current keys.

    Args:
        tree: nested config, as in `config.json`.

    Returns:
        The config, with defaults for new keys and without removed keys.
        The names of the removed keys.
    """
    stored = dict(_leaves(tree))
    filled: dict[str, Any] = {}
    for name, key in default.KEYS.items():
        *groups, last = name.split(".")
        group = filled
        for part in groups:
            group = group.setdefault(part, {})
        group[last] = stored.pop(name, key.default)
    return filled, sorted(stored)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differences between a run and its continuation that are not allowed.

    Args:
        old, new: nested configs with every key.

    Returns:
        The name and both values of each key that differs.
    """
    # Through JSON, as stored configs are: tuples become lists.
    before, after = (dict(_leaves(json.loads(json.dumps(tree)))) for tree in (old, new))
    messages = []
    for name, key in default.KEYS.items():
        if key.change is Change.FREELY:
            continue
        if key.change is Change.GROWS and after[name] > before[name]:
            continue
        theirs, ours = (_dotted(tree[name], name) for tree in (before, after))
        free = {f"{name}.{inner}" for inner in key.free}
        for inner in sorted((theirs.keys() | ours.keys()) - free):
            there, here = (side.get(inner, "absent") for side in (theirs, ours))
            if there != here:
                messages.append(f"{inner} ({there} there, {here} here)")
    return messages


def _check_together(values: Mapping[str, Any]) -> None:
    """Checks values that depend on each other."""

    def refuse(name: str, why: str) -> None:
        raise InputError(f"config.{name} is {shown(values[name])}; {why}.")

    if values["batch_size"] % values["accumulate"]:
        refuse("accumulate", f"it must divide config.batch_size, {values['batch_size']}")
    least, most = values["augment.scale"]
    if least > most:
        refuse("augment.scale", "it must be (least, most)")
    if least * values["input_scale"] < _SMALLEST_SCALE:
        refuse(
            "augment.scale",
            f"with config.input_scale {values['input_scale']} images would be smaller than "
            "1/16 of their size",
        )
    if most * values["input_scale"] > _LARGEST_SCALE:
        refuse(
            "augment.scale",
            f"with config.input_scale {values['input_scale']:g} images would be larger than "
            f"{_LARGEST_SCALE} times their size",
        )
    fixed = tuple(values["input_size"])
    if min(fixed) == 0 < max(fixed):
        refuse("input_size", "it must be a height and a width, or (0, 0)")
    if any(fixed) and values["input_scale"] != 1:
        refuse("input_scale", f"it must be 1 where config.input_size is given, {fixed}")
    if any(fixed) and values["eval.bucket"] > 1:
        refuse("eval.bucket", f"it must be 0 or 1 where config.input_size is given, {fixed}")
    schedule = values["optim.schedule"]
    if schedule in ("step", "inverse_time") and values["optim.decay"] <= 0:
        refuse("optim.decay", f'the schedule "{schedule}" needs a number above 0')
    if schedule == "step" and values["optim.step_every"] < 1:
        refuse("optim.step_every", 'the schedule "step" needs a whole number from 1 on')
    if values["loader.workers"] and not values["loader.prefetch"]:
        refuse("loader.prefetch", "with config.loader.workers it must be at least 1")


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every key of `default.KEYS` in a config, and of unknown keys."""
    groups = {name.rpartition(".")[0] for name in default.KEYS}
    for name in tree:
        value, path = tree[name], f"{prefix}{name}"
        if path in groups and path not in default.KEYS and hasattr(value, "keys"):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _dotted(tree: Any, name: str) -> dict[str, Any]:
    """Dotted name -> value for all keys below a key."""
    if not hasattr(tree, "keys"):
        return {name: tree}
    return {
        inner: value
        for part in tree
        for inner, value in _dotted(tree[part], f"{name}.{part}").items()
    }


def shown(value: Any) -> str:
    """A value for an error message, shortened to 80 characters."""
    whole = value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value
    words = repr(whole)
    return words if len(words) <= 80 else f"{words[:77]}..."
