"""Shapes and types of a state's arrays, and what differs between two states."""

from typing import Any

import jax

_LISTED = 3  # names in one message


def differences(expected: Any, stored: Any) -> list[str]:
    """What two trees of arrays, or of their shapes, differ in; [] if one can stand for the other.

    Args:
        expected: what a program needs.
        stored: what a checkpoint holds.
    """
    here, there = _flat(expected), _flat(stored)
    kinds = {
        "missing": sorted(here.keys() - there.keys()),
        "extra": sorted(there.keys() - here.keys()),
        "misshapen": [
            f"{key} {there[key]} for {here[key]}"
            for key in sorted(here.keys() & there.keys())
            if there[key] != here[key]
        ],
    }
    return [f"{kind}: {_some(names)}" for kind, names in kinds.items() if names]


def _flat(tree: Any) -> dict[str, str]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
