"""Starting from weights: those of a file, or of another run. `config.init` says which."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from segjax.errors import InputError, choose
from segjax.models import importers
from segjax.models.importers import files
from segjax.training import assembly
from segjax.training.state import TrainState

PREPROCESSES = ("weights", "config")


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run's first weights come from, read when they are needed.

    Attributes:
        name: a file of weights, or a run folder, as `config.init.from` has it.
        step: of a run folder: "best", "latest" or a number.
        origin: a key of `weights.ORIGINS`, or "" to tell it from the names.
        skip: patterns of what need not match.
    """

    name: str
    step: str
    origin: str
    skip: tuple[str, ...]

    @functools.cached_property
    def path(self) -> pathlib.Path:
        """Where it is: see `find`. A run that goes on never asks."""
        return find(self.name, "config.init.from")

    @functools.cached_property
    def _content(self) -> tuple[Mapping[str, np.ndarray], str, Mapping[str, Any] | None]:
        """Arrays by the names in the file, their origin, what images they are for."""
        if self.path.is_dir():
            parts, ts, _ = assembly.restore(self.path, self.step)
            return flatten(ts.params, ts.batch_stats), "segjax", dict(parts.config.preprocess)
        arrays, meta = files.read(self.path)
        origin = self.origin or importers.origin_of(arrays, str(self.path))
        choose("config.init.origin", origin, importers.ORIGINS)
        return arrays, origin, meta.get("preprocess") or importers.ORIGINS[origin].preprocess

    @property
    def preprocess(self) -> Mapping[str, Any] | None:
        """What images the weights are for, as `config.preprocess`; None where it is not known."""
        return self._content[2]

    def load(self, params: Any, batch_stats: Any) -> tuple[Any, Any]:
        """The two trees with the weights in place of what they held.

        Raises:
            InputError: listing the tensors that do not match.
        """
        arrays, origin, _ = self._content
        shapes = {path: leaf.shape for path, leaf in flatten(params, batch_stats).items()}
        found, unused = importers.ORIGINS[origin].convert(arrays, shapes)
        matched = importers.match(found, shapes, self.skip, where=str(self.path), unused=unused)
        logging.info("Weights of %s (%s): %s.", self.path, origin, matched)
        return put(params, matched.arrays), put(batch_stats, matched.arrays)


def start_of(config: ml_collections.ConfigDict) -> Start | None:
    """What `config.init` names, or None where it names nothing; nothing is read yet.

    Raises:
        InputError: if `config.init.preprocess` is none of PREPROCESSES.
    """
    init = config.init
    choose("config.init.preprocess", init.preprocess, PREPROCESSES)
    if not init["from"]:
        return None
    return Start(init["from"], str(init.step), init.origin, tuple(init.skip))


def find(name: str, key: str) -> pathlib.Path:
    """A file or folder, here or in `$SEGJAX_WEIGHTS` ("weights" where that is not set).

    Raises:
        InputError: naming the config's key, if it is in neither place.
    """
    home = pathlib.Path(os.environ.get("SEGJAX_WEIGHTS") or "weights")
    tried = [pathlib.Path(name), home / name]
    for path in tried:
        if name and path.exists():
            return path
    raise InputError(
        f"{key}: there is neither {str(tried[0])!r} nor {str(tried[1])!r}; weights are looked for "
        "here and in $SEGJAX_WEIGHTS."
    )


def adopt_preprocess(
    config: ml_collections.ConfigDict, start: Start | None, workdir: pathlib.Path | None = None
) -> None:
    """Sets `config.preprocess` to what the weights were made for, unless the config shall decide.

    A run that goes on keeps what it began with, and needs the weights no more.
    """
    if start is None or config.init.preprocess == "config":
        return
    stored = workdir / "config.json" if workdir else None
    if stored and stored.exists():
        found = json.loads(stored.read_text()).get("preprocess")
    else:
        found = start.preprocess
    if found is None:
        logging.info("%s does not say what images it is for: config.preprocess holds.", start.path)
        return
    mean, std = (tuple(map(float, found[key])) for key in ("mean", "std"))
    config.preprocess = {"mean": mean, "std": std, "bgr": bool(found["bgr"])}
    logging.info("Images as the weights know them: %s.", describe(config.preprocess))


def initial_state(parts: assembly.Experiment, start: Start | None) -> TrainState:
    """The state before the first step, with the weights that `start` has for it."""
    ts = parts.initial_state()
    if start is None:
        return ts
    params, batch_stats = start.load(ts.params, ts.batch_stats)
    # Copies: the state is donated, and two leaves must not share a buffer.
    ema = jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats}) if ts.ema else {}
    return ts.replace(params=params, batch_stats=batch_stats, ema=ema)


def flatten(params: Any, batch_stats: Any) -> dict[str, Any]:
    """Path, such as "backbone/fc6/kernel" -> array, of both trees."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for tree in (params, batch_stats)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def describe(preprocess: Mapping[str, Any]) -> str:
    """A preprocessing in words."""
    order = "BGR" if preprocess["bgr"] else "RGB"
    return (
        f"(RGB - {tuple(preprocess['mean'])}) / {tuple(preprocess['std'])}, handed over as {order}"
    )


def put(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The tree with new arrays, on the devices where the old ones are."""

    def new(path, leaf):
        array = arrays.get(jax.tree_util.keystr(path, simple=True, separator="/"))
        if array is None:
            return leaf
        return jax.make_array_from_process_local_data(leaf.sharding, array.astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(new, tree)
