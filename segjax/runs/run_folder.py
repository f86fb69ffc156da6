"""A run folder: the config it was made with, and who may go on with it."""

import importlib.metadata
import json
import pathlib
from typing import Any

import jax
import ml_collections
from absl import logging

from segjax import files
from segjax.configuration import keys
from segjax.errors import InputError

_NAME = "config.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def versions() -> dict[str, str]:
    """Versions of the packages that decide numbers, and the kind of device."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return packages | {"device": jax.devices()[0].device_kind, "devices": str(jax.device_count())}


def check(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Passes a new folder, or one of this run; `segjax.configs.default` says what may change.

    Raises:
        InputError: naming the keys that differ.
    """
    stored = _stored(workdir)
    if stored is None:
        return
    now, _ = keys.fill(json.loads(config.to_json()))
    told = keys.differences(stored, now)
    if told:
        raise InputError(
            f"{workdir} holds a run of another config: {', '.join(told)}. "
            "Give another --workdir, or the same config."
        )


def claim(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> int | None:
    """Writes config.json, which makes the folder this run's.

    Returns:
        `total_steps` as it was before; None in a new folder.
    """
    stored = _stored(workdir)
    if jax.process_index() == 0:
        files.write_json(workdir / _NAME, json.loads(config.to_json()))
    return None if stored is None else int(stored["total_steps"])


def read_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of a run folder; keys that are newer than it have their defaults.

    Raises:
        InputError: if there is none.
    """
    stored = _stored(workdir)
    if stored is None:
        raise InputError(f"{workdir} is no run folder: it has no {_NAME}.")
    return ml_collections.ConfigDict(frozen(stored))


def _stored(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The stored config with every key of today; None without one."""
    path = workdir / _NAME
    if not path.exists():
        return None
    try:
        filled, gone = keys.fill(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if gone:
        logging.info("%s: ignored keys that no longer exist: %s.", path, ", ".join(gone))
    return filled


def frozen(tree: Any) -> Any:
    """Lists back to tuples: JSON knows only one of them."""
    if isinstance(tree, dict):
        return {key: frozen(value) for key, value in tree.items()}
    return tuple(map(frozen, tree)) if isinstance(tree, list) else tree
