"""Initial weights of a network, from a file or another run, as named by `config.init`."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh

from segjax import class_order, sharding
from segjax import network as networks
from segjax.data.spec import DatasetSpec
from segjax.errors import InputError, choose
from segjax.models import functional, importers
from segjax.models.importers import weight_files
from segjax.network import Model, Network, model_of

PREPROCESSES = ("weights", "config")


@dataclasses.dataclass(frozen=True)
class Start:
    """Initial weights, read on first use.

    Attributes:
        name: weight file or run folder, `config.init.from`.
        step: checkpoint of a run folder: "best", "latest" or a number.
        origin: a key of `importers.ORIGINS`, or "" to detect it from the names in the file.
        skip: patterns of parameter paths that need not match.
    """

    name: str
    step: str
    origin: str
    skip: tuple[str, ...]

    @functools.cached_property
    def path(self) -> pathlib.Path:
        """Path of the file or folder, see `find`. A resumed run does not need it."""
        return find(self.name, "config.init.from")

    @functools.cached_property
    def _content(
        self,
    ) -> tuple[Mapping[str, np.ndarray], str, Mapping[str, Any] | None, Sequence[str] | None]:
        """Arrays by name, their origin, and their preprocessing and classes if known."""
        if self.path.is_dir():
            run = networks.load(self.path, self.step)
            classes = run.network.model.spec.classes
            return run.network.arrays(), "segjax", dict(run.config.preprocess), classes
        arrays, meta = weight_files.read(self.path)
        origin = self.origin or importers.origin_of(arrays, str(self.path))
        choose("config.init.origin", origin, importers.ORIGINS)
        preprocess = meta.get("preprocess") or importers.ORIGINS[origin].preprocess
        return arrays, origin, preprocess, meta.get("classes")

    @property
    def preprocess(self) -> Mapping[str, Any] | None:
        """The preprocessing for these weights, as in `config.preprocess`; None if unknown."""
        return self._content[2]

    def check(self, model: Model) -> None:
        """Checks that the weights fit the model.

        Raises:
            InputError: listing the tensors that do not match, or if the classes are other ones.
        """
        match = self._match(functional.by_path(*model.shapes()))
        class_order.in_order(match.arrays, self._content[3], model, where=str(self.path))

    def load(self, params: Any, batch_stats: Any, *, model: Model) -> tuple[Any, Any]:
        """The two trees with the weights for their arrays, in the order of the model's classes.

        Raises:
            InputError: as `check` does.
        """
        match = self._match(functional.by_path(params, batch_stats))
        arrays = class_order.in_order(match.arrays, self._content[3], model, where=str(self.path))
        logging.info("Weights from %s (%s): %s.", self.path, self._content[1], match)
        return put(params, arrays), put(batch_stats, arrays)

    @functools.cached_property
    def _matches(self) -> dict[frozenset, importers.Match]:
        """A network's shapes -> its match: `check` and then `load` convert the weights once."""
        return {}

    def _match(self, leaves: Mapping[str, Any]) -> importers.Match:
        arrays, origin, *_ = self._content
        shapes = {path: leaf.shape for path, leaf in leaves.items()}
        key = frozenset(shapes.items())
        if key not in self._matches:
            known, unused = importers.ORIGINS[origin].convert(arrays, shapes)
            self._matches[key] = importers.match(
                known, shapes, self.skip, where=str(self.path), unused=unused
            )
        return self._matches[key]


def start_of(config: ml_collections.ConfigDict) -> Start | None:
    """The initial weights that `config.init` names, or None; reads nothing yet.

    Raises:
        InputError: if `config.init.preprocess` is not one of PREPROCESSES.
    """
    init = config.init
    choose("config.init.preprocess", init.preprocess, PREPROCESSES)
    if not init["from"]:
        return None
    return Start(init["from"], str(init.step), init.origin, tuple(init.skip))


def find(name: str, key: str) -> pathlib.Path:
    """Path of a file or folder, here or in `$SEGJAX_WEIGHTS` ("weights" if that is not set).

    Raises:
        InputError: naming the config key `key`, if it is in neither place.
    """
    home = pathlib.Path(os.environ.get("SEGJAX_WEIGHTS") or "weights")
    tried = [pathlib.Path(name), home / name]
    for path in tried:
        if name and path.exists():
            return path
    raise InputError(
        f"{key}: neither {str(tried[0])!r} nor {str(tried[1])!r} exists; weights are searched here "
        "and in $SEGJAX_WEIGHTS."
    )


def adopt_preprocess(
    config: ml_collections.ConfigDict, start: Start | None, workdir: pathlib.Path | None = None
) -> None:
    """Sets `config.preprocess` to that of the weights, unless `config.init.preprocess` is "config".

    A resumed run keeps its stored preprocessing and does not need the weights.
    """
    if start is None or config.init.preprocess == "config":
        return
    stored = workdir / "config.json" if workdir else None
    if stored and stored.exists():
        preprocess = json.loads(stored.read_text()).get("preprocess")
    else:
        preprocess = start.preprocess
    if preprocess is None:
        logging.info("%s does not state its preprocessing; config.preprocess is used.", start.path)
        return
    mean, std = (tuple(map(float, preprocess[key])) for key in ("mean", "std"))
    config.preprocess = {"mean": mean, "std": std, "bgr": bool(preprocess["bgr"])}
    logging.info("Preprocessing of the weights: %s.", describe(config.preprocess))


def pretrained(
    config: ml_collections.ConfigDict,
    classes: DatasetSpec | int,
    devices: Sequence[jax.Device] | None = None,
) -> tuple[Network, Mesh]:
    """The network of a config with the weights that it names, and its device mesh.

    Args:
        config: the config; its `preprocess` is set to that of the weights.
        classes: see `network.model_of`.
        devices: devices to use; None for all.

    Raises:
        InputError: if the config names no weights, or they do not fit.
    """
    start = start_of(config)
    if start is None:
        raise InputError("config.init.from: a network without a run needs weights.")
    adopt_preprocess(config, start)
    model = model_of(config, classes)
    mesh = sharding.make_mesh(config.mesh.space, devices, at_most=True)
    drawn = jax.device_put(model.draw(config.seed), sharding.replicated(mesh))
    return Network(*start.load(*drawn, model=model), model), mesh


def describe(preprocess: Mapping[str, Any]) -> str:
    """A preprocessing as text."""
    order = "BGR" if preprocess["bgr"] else "RGB"
    return (
        f"(RGB - {tuple(preprocess['mean'])}) / {tuple(preprocess['std'])}, handed over as {order}"
    )


def put(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The tree with new arrays, on the devices of the old ones.

    Args:
        tree: parameters or batch statistics.
        arrays: path -> array; leaves without an entry stay.
    """

    def new(path: tuple, leaf: jax.Array) -> jax.Array:
        array = arrays.get(jax.tree_util.keystr(path, simple=True, separator="/"))
        if array is None:
            return leaf
        array = array.astype(leaf.dtype)
        placed: jax.Array = jax.make_array_from_process_local_data(leaf.sharding, array)
        return placed

    return jax.tree_util.tree_map_with_path(new, tree)
