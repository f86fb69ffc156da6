"""Named settings, and what differs from one: "preset" or "preset, key=value, ..."."""

import ast
import dataclasses
import difflib
import hashlib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from segjax.errors import InputError

Settings = TypeVar("Settings")
"""A dataclass, one of whose fields is `name`."""


def parse(key: str, text: str) -> tuple[str, dict[str, Any]]:
    """Reads "preset" or "preset, key=value, ...".

    Args:
        key: what is being read, for messages.
        text: values are Python's literals.

    Returns:
        The preset's name and what shall differ from it.

    Raises:
        InputError: on anything else.
    """
    preset, _, rest = text.partition(",")
    try:
        call = ast.parse(f"dict({rest})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("no key")
        changes = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError):
        raise InputError(
            f"{key}: {text!r} is not a preset with key=value after it, such as "
            '"preset, key=(713, 713), other=2048".'
        ) from None
    return preset.strip(), changes


def changed(
    key: str, preset: str, changes: Mapping[str, Any], presets: Mapping[str, Settings]
) -> Settings:
    """A preset with changes; its name then has a mark of them, the same for the same changes.

    Raises:
        InputError: on an unknown preset or field.
    """
    _known(key, preset, presets)
    one = presets[preset]
    fields = [field.name for field in dataclasses.fields(one) if field.name != "name"]
    for field in changes:
        _known(key, field, fields)
    changes = {field: value for field, value in changes.items() if getattr(one, field) != value}
    if not changes:
        return one
    mark = hashlib.sha256(repr(sorted(changes.items())).encode()).hexdigest()[:6]
    return dataclasses.replace(one, name=f"{preset}-{mark}", **changes)


def _known(key: str, word: str, known: Collection[str]) -> None:
    if word not in known:
        near = difflib.get_close_matches(str(word), known, 1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise InputError(f"{key}: unknown {word!r}; known: {', '.join(known)}.{hint}")
