"""Checks of a whole config: its values, one by one and together, and what a resume may change."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from segjax.configs import default
from segjax.configuration.allowed import Change
from segjax.errors import InputError, near

_SMALLEST_SCALE = 1 / 16  # of an image, before a crop is taken


def check(config: ml_collections.ConfigDict) -> None:
    """Checks every key's value; options of a network, method, data set or CRF are left to these.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    found = dict(_leaves(config))
    for name, value in found.items():
        if not is_key(name):
            raise InputError(f"config.{name} is no key.{near(name, default.KEYS)}")
        if not default.KEYS[name].kind.holds(value):
            raise InputError(complaint(name, value))
    for name in default.KEYS:
        if name not in found:
            raise InputError(f"config.{name} is missing.")
    _check_together(found)


def is_key(name: str) -> bool:
    """Whether a dotted name is a key that `check` checks by itself."""
    return name in default.KEYS


def complaint(name: str, value: Any) -> str:
    """The error's text for a value that a key may not hold."""
    return f"config.{name} is {_shown(value)}; it must be {default.KEYS[name].kind.words}."


def fill(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A stored config in terms of today's keys.

    Args:
        tree: nested, as `config.json` holds it.

    Returns:
        The same with the defaults of keys that are newer than it, and without those that are gone;
        the names of these.
    """
    found = dict(_leaves(tree))
    filled: dict[str, Any] = {}
    for name, key in default.KEYS.items():
        *groups, last = name.split(".")
        group = filled
        for part in groups:
            group = group.setdefault(part, {})
        group[last] = found.pop(name, key.default)
    return filled, sorted(found)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What may not differ between a run and its continuation, but does.

    Args:
        old, new: nested configs with every key.

    Returns:
        For each such key its name and both values.
    """
    # As a file would give them back: tuples are lists.
    before, after = (dict(_leaves(json.loads(json.dumps(tree)))) for tree in (old, new))
    told = []
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
                told.append(f"{inner} ({there} there, {here} here)")
    return told


def _check_together(found: Mapping[str, Any]) -> None:
    """Checks values that must fit one another."""

    def refuse(name: str, why: str) -> None:
        raise InputError(f"config.{name} is {_shown(found[name])}; {why}.")

    if found["batch_size"] % found["accumulate"]:
        refuse("accumulate", f"it must divide config.batch_size, {found['batch_size']}")
    least, most = found["augment.scale"]
    if least > most:
        refuse("augment.scale", "it must be (least, most)")
    if least * found["input_scale"] < _SMALLEST_SCALE:
        refuse(
            "augment.scale",
            f"with config.input_scale {found['input_scale']} images would be smaller than "
            "1/16 of their size",
        )
    fixed = tuple(found["input_size"])
    if min(fixed) == 0 < max(fixed):
        refuse("input_size", "it must be a height and a width, or (0, 0)")
    if any(fixed) and found["input_scale"] != 1:
        refuse("input_scale", f"it must be 1 where config.input_size is given, {fixed}")
    if any(fixed) and found["eval.bucket"] > 1:
        refuse("eval.bucket", f"it must be 0 or 1 where config.input_size is given, {fixed}")
    schedule = found["optim.schedule"]
    if schedule in ("step", "inverse_time") and found["optim.decay"] <= 0:
        refuse("optim.decay", f'the schedule "{schedule}" needs a number above 0')
    if schedule == "step" and found["optim.step_every"] < 1:
        refuse("optim.step_every", 'the schedule "step" needs a whole number from 1 on')
    if found["loader.workers"] and not found["loader.prefetch"]:
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
    """Dotted name -> value of everything below a key."""
    if not hasattr(tree, "keys"):
        return {name: tree}
    return {
        inner: value
        for part in tree
        for inner, value in _dotted(tree[part], f"{name}.{part}").items()
    }


def _shown(value: Any) -> str:
    """A value in an error: on one line, and not endless."""
    whole = value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value
    words = repr(whole)
    return words if len(words) <= 80 else f"{words[:77]}..."
