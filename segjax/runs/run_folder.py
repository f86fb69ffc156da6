"""A run folder: the config it was made with, and who may go on with it."""

import importlib.metadata
import json
import pathlib
from typing import Any

import jax
import ml_collections

from segjax import files
from segjax.errors import InputError

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


# What may differ from the run that is resumed: it changes neither examples nor numbers.
_FREE_KEYS = ("loader.", "mesh.", "every_steps.log", "model.crf.vertices")


# Keys that run folders from before them lack, and what was done then.
_NEWER_KEYS = {
    "eval.protocol": "single",
    "eval.crf.preset": "",
    "loss.name": "cross_entropy",
    "loss.also": [],
    "loss.label_smoothing": 0.0,
    "loss.focal_gamma": 2.0,
    "loss.ohem_threshold": 0.7,
    "loss.ohem_share": 0.0625,
    "loss.region_classes": "present",
}


def versions() -> dict[str, str]:
    """Versions of the packages that decide numbers, and the kind of device."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return found | {"device": jax.devices()[0].device_kind, "devices": str(jax.device_count())}


def check_workdir(workdir: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Writes config.json into a new run folder; refuses the folder of another config.

    Raises:
        InputError: naming the keys that differ.
    """
    path = workdir / "config.json"
    now = json.loads(config.to_json())
    if path.exists():
        old, new = _NEWER_KEYS | _dotted(json.loads(path.read_text())), _dotted(now)
        differing = [
            f"{key} ({old.get(key, 'absent')} there, {new.get(key, 'absent')} here)"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not key.startswith(_FREE_KEYS)
            and not (key == "total_steps" and new[key] > old[key])
        ]  # fmt: skip
        if differing:
            raise InputError(
                f"{workdir} holds a run of another config: {', '.join(differing)}. "
                "Give another --workdir, or the same config."
            )
    if jax.process_index() == 0:
        files.write_json(path, now)


def read_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of a run folder.

    Raises:
        InputError: if there is none.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise InputError(f"{workdir} is no run folder: it has no config.json.")
    config = ml_collections.ConfigDict(_frozen(json.loads(path.read_text())))
    for key, value in _NEWER_KEYS.items():
        *parents, name = key.split(".")
        part = config
        for parent in parents:
            part[parent] = part.get(parent, {})
            part = part[parent]
        part[name] = part.get(name, _frozen(value))
    return config


def _dotted(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {
        key: value
        for name, part in tree.items()
        for key, value in _dotted(part, f"{prefix}{name}.").items()
    }


def _frozen(tree: Any) -> Any:
    """Lists back to tuples: JSON knows only one of them."""
    if isinstance(tree, dict):
        return {key: _frozen(value) for key, value in tree.items()}
    return tuple(map(_frozen, tree)) if isinstance(tree, list) else tree
