"""Initial weights of a network, from a file or another run, as named by `config.init`."""

import dataclasses
import fnmatch
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

from segjax import class_order, initial_network, sharding
from segjax import network as networks
from segjax.data import class_tables
from segjax.data.dataset import numbered
from segjax.data.spec import MAX_CLASSES, DatasetSpec, hls_palette
from segjax.errors import InputError, choose
from segjax.models import functional, importers
from segjax.models.importers import networks as networks_of_weights
from segjax.models.importers import weight_files
from segjax.models.importers.networks import Network
from segjax.network import Model, model_of
from segjax.runs import run_folder

PREPROCESSES = ("weights", "config")


@dataclasses.dataclass(frozen=True)
class Content:
    """Weights as they were read.

    Attributes:
        arrays: name in the file -> array.
        origin: a key of `importers.ORIGINS`.
        preprocess: normalisation as in `config.preprocess`, or None if unknown.
        network: the network that they were made for, or None if unknown.
        spec: the classes of a segmentation network, or None if it has none or they are unknown.
    """

    arrays: Mapping[str, np.ndarray]
    origin: str
    preprocess: Mapping[str, Any] | None
    network: Network | None
    spec: DatasetSpec | None


@dataclasses.dataclass(eq=False)
class Start:
    """Initial weights, read on first use.

    Attributes:
        name: weight file or run folder, `config.init.from`.
        step: checkpoint of a run folder: "best", "latest" or a number.
        origin: a key of `importers.ORIGINS`, or "" to detect it from the names in the file.
        skip: patterns of parameter paths that need not match.
        differs: patterns of options that may differ from those of the weights' network.
    """

    name: str
    step: str
    origin: str
    skip: tuple[str, ...]
    differs: tuple[str, ...] = ()

    @functools.cached_property
    def path(self) -> pathlib.Path:
        """Path of the file or folder, see `find`. A resumed run does not need it."""
        return find(self.name, "config.init.from")

    @functools.cached_property
    def content(self) -> Content:
        """The weights and what is known about them."""
        if self.path.is_dir():
            run = networks.load(self.path, self.step)
            network = Network(run.config.model.to_dict(), classes=run.network.model.num_classes)
            arrays, preprocess = run.network.arrays(), dict(run.config.preprocess)
            return Content(arrays, "segjax", preprocess, network, run.network.model.classes)
        return read(self.path, self.origin)

    @property
    def where(self) -> str:
        """The file and its origin, as messages name them."""
        return f"{self.path} ({self.content.origin})"

    @property
    def preprocess(self) -> Mapping[str, Any] | None:
        """The preprocessing for these weights, as in `config.preprocess`; None if unknown."""
        return self.content.preprocess

    def check(self, model: Model) -> None:
        """Checks that the weights fit the model, and that it is the network they were made for.

        Raises:
            InputError: listing the options that differ, the tensors that do not match, or other
                classes.
        """
        shapes = _shapes_of(functional.by_path(*model.shapes()))
        if self.content.network is not None:
            known, _ = self._converted(shapes)
            loaded = {
                path.partition("/")[0]
                for path in known.keys() & shapes.keys()
                if not any(fnmatch.fnmatchcase(path, pattern) for pattern in self.skip)
            }
            initial_network.check(
                self.content.network, model.options, loaded, self.differs, self.where
            )
        self._ordered(self._match(shapes), model)

    def load(self, params: Any, batch_stats: Any, *, model: Model) -> tuple[Any, Any]:
        """The two trees with the weights for their arrays, in the order of the model's classes.

        Raises:
            InputError: as `check` does.
        """
        match = self._match(_shapes_of(functional.by_path(params, batch_stats)))
        arrays = self._ordered(match, model)
        logging.info("Weights from %s: %s.", self.where, match)
        return put(params, arrays), put(batch_stats, arrays)

    def _ordered(self, match: importers.Match, model: Model) -> dict[str, np.ndarray]:
        """The arrays in the order of the model's classes."""
        spec = self.content.spec
        names = None if spec is None else spec.classes
        return class_order.in_order(match.arrays, names, model, where=self.where)

    @functools.cached_property
    def _conversions(self) -> dict[frozenset, tuple[Mapping, Mapping]]:
        """A network's shapes -> its arrays: `check` and then `load` convert the weights once."""
        return {}

    def _converted(self, shapes: Mapping[str, tuple]) -> tuple[Mapping, Mapping]:
        key = frozenset(shapes.items())
        if key not in self._conversions:
            origin = importers.ORIGINS[self.content.origin]
            known, unused = origin.convert(self.content.arrays, shapes)
            if not any(path.startswith("aux/") for path in shapes):
                # It only helps training: without one the network predicts the same.
                side = {path for path in known if path.startswith("aux/")}
                known = {path: array for path, array in known.items() if path not in side}
                unused = {**unused, **dict.fromkeys(side, "the network has no auxiliary head")}
            self._conversions[key] = known, unused
        return self._conversions[key]

    def _match(self, shapes: Mapping[str, tuple]) -> importers.Match:
        known, unused = self._converted(shapes)
        return importers.match(known, shapes, self.skip, where=str(self.path), unused=unused)


def _shapes_of(leaves: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in leaves.items()}


def read(path: pathlib.Path, origin: str = "") -> Content:
    """The weights in a file and what is known about them.

    Args:
        path: the file.
        origin: a key of `importers.ORIGINS`, or "" to detect it from the names in the file.

    Raises:
        InputError: if it cannot be read, or its origin is unknown.
    """
    arrays, meta = weight_files.read(path)
    origin = origin or importers.origin_of(arrays, str(path))
    choose("config.init.origin", origin, importers.ORIGINS)
    entry = importers.ORIGINS[origin]
    if entry.network is None:
        model, names = meta.get("model"), meta.get("classes")
        count = networks_of_weights.classes_of(arrays)
        known = isinstance(model, dict) and {"backbone", "head"} <= model.keys()
        network = Network(run_folder.frozen(model), classes=count) if known else None
        spec = None
        if names:
            palette = tuple(map(tuple, meta.get("palette") or hls_palette(len(names))))
            spec = dataclasses.replace(numbered(path.stem, names), palette=palette)
    else:
        network = entry.network(arrays, entry.convert(arrays, {})[0])
        spec = _labels(entry, network.classes, path.stem)
    return Content(arrays, origin, meta.get("preprocess") or entry.preprocess, network, spec)


def _labels(origin: importers.Origin, count: int | None, name: str) -> DatasetSpec | None:
    """The classes of a foreign segmentation network: a known data set's, or numbered ones."""
    if not origin.labels or count is None:
        return None
    known = {spec.name: spec for spec in class_tables.ALL}
    for label in origin.labels:
        if known[label].num_classes == count:
            return known[label]
    return numbered(name, [f"class {i}" for i in range(count)]) if count <= MAX_CLASSES else None


def start_of(config: ml_collections.ConfigDict) -> Start | None:
    """The initial weights that `config.init` names, or None; reads nothing yet.

    Raises:
        InputError: if `config.init.preprocess` is not one of PREPROCESSES.
    """
    init = config.init
    choose("config.init.preprocess", init.preprocess, PREPROCESSES)
    if not init["from"]:
        return None
    return Start(init["from"], str(init.step), init.origin, tuple(init.skip), tuple(init.differs))


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


def adopt_network(
    config: ml_collections.ConfigDict,
    start: Start | None,
    classes: DatasetSpec | int,
    workdir: pathlib.Path | None = None,
) -> None:
    """Sets `config.model` to the network of the weights, if `config.init.network` is "weights".

    The last layers, of scores, are drawn unless the weights were made for the same classes:
    `config.init.skip` then names them. A resumed run keeps both and does not need the weights.

    Args:
        config: the config.
        start: its weights.
        classes: classes of the data, or number of classes of a classifier.
        workdir: the run folder.

    Raises:
        InputError: if there are no weights, or their network is unknown.
    """
    if config.init.network != "weights":
        return
    if start is None:
        raise InputError(
            'config.init.network is "weights": it needs a file of them, --config.init.from=PATH.'
        )
    stored = workdir / "config.json" if workdir else None
    if stored and stored.exists():
        then = run_folder.read_config(stored.parent)
        initial_network.adopt(config, Network(then.model.to_dict()), str(stored))
        config.init.skip = start.skip = then.init.skip
        return
    content = start.content
    if content.network is None:
        raise InputError(f"{start.where}: does not say of which network it is; name a recipe.")
    initial_network.adopt(config, content.network, start.where)
    if same_classes(content, classes):
        return
    layers = score_layers(config, classes)
    config.init.skip = start.skip = tuple(dict.fromkeys((*start.skip, *layers)))
    logging.info(
        "%s: drawn anew for other classes (%s there, %s here): %s.",
        start.where,
        _told(content.spec or content.network.classes),
        _told(classes),
        ", ".join(layers),
    )


def same_classes(content: Content, classes: DatasetSpec | int) -> bool:
    """Whether weights are of these classes: by name where names are known, else by number."""
    if isinstance(classes, DatasetSpec) and content.spec is not None:
        return class_order.same(content.spec.classes, classes.classes)
    count = classes if isinstance(classes, int) else classes.num_classes
    return content.network is not None and content.network.classes == count


def score_layers(config: ml_collections.ConfigDict, classes: DatasetSpec | int) -> list[str]:
    """Patterns of the paths of all layers whose shapes depend on the number of classes."""
    paths = class_order.class_axes(model_of(config, classes))
    return list(dict.fromkeys(f"{path.rpartition('/')[0]}/*" for path in paths))


def _told(classes: DatasetSpec | int | None) -> str:
    """Classes as text: their number and the first names."""
    if not isinstance(classes, DatasetSpec):
        return f"{classes or 'no'} classes"
    return f"{classes.num_classes} classes: {', '.join(classes.classes[:3])}, ..."


def pretrained(
    config: ml_collections.ConfigDict,
    classes: DatasetSpec | int | None,
    devices: Sequence[jax.Device] | None = None,
) -> tuple[networks.Network, Mesh]:
    """The network of a config with the weights that it names, and its device mesh.

    Args:
        config: the config; its `preprocess`, and under `init.network` "weights" its `model`, are
            set to those of the weights.
        classes: see `network.model_of`; None for those of the weights.
        devices: devices to use; None for all.

    Raises:
        InputError: if the config names no weights, or they do not fit.
    """
    start = start_of(config)
    if start is None:
        raise InputError("config.init.from: a network without a run needs weights.")
    adopt_preprocess(config, start)
    if classes is None:
        classes = start.content.spec
        if classes is None:
            raise InputError(
                f"{start.where}: no segmentation network, so that it labels nothing before it is "
                "trained; of a classifier `--save=heatmaps` shows what it sees, with "
                "--config.predict.classes=FILE, the names of its classes."
            )
    if config.init.network == "weights" and not same_classes(start.content, classes):
        raise InputError(
            f"{start.where}: made for {_told(start.content.spec or _count(start))}, not for "
            f"{_told(classes)}; without training it knows no others."
        )
    adopt_network(config, start, classes)
    model = model_of(config, classes)
    start.check(model)
    mesh = sharding.make_mesh(config.mesh.space, devices, at_most=True)
    drawn = jax.device_put(model.draw(config.seed), sharding.replicated(mesh))
    return networks.Network(*start.load(*drawn, model=model), model), mesh


def _count(start: Start) -> int | None:
    network = start.content.network
    return network.classes if network else None


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
