"""A network: what evaluation, prediction, export, heat maps and a user's script hold.

`Model` is the static part, what is computed; `Network` adds the weights and is a pytree, so that it
can be passed to a jitted function as it is: `jax.jit(lambda net, image: net(image))(network, x)`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import ml_collections
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from segjax import models, sharding
from segjax.arrays import Size
from segjax.data.spec import DatasetSpec
from segjax.errors import InputError
from segjax.models import functional
from segjax.models.features import Scores
from segjax.models.preprocess import Preprocess
from segjax.runs import checkpoint, run_folder


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """What a network computes, without its weights.

    Two models are equal only if they are the same object: a jitted function finds the program of
    one without comparing graphs.

    Attributes:
        options: `config.model`, as plain data.
        dtype: of the computation, "float32" or "bfloat16".
        num_classes: K.
        classes: their names and colours; None for a classifier, whose classes are only counted.
        preprocess: from RGB of 0 to 255 to the input of the backbone.
        input_scale: the network sees images at this scale.
        input_size: or every image at this size, unless it is (0, 0).
        seed: of the dropout draws in `Network.sampled`.
        graphs: the structures that `functional.merge` joins with weights.
    """

    options: Mapping[str, Any]
    dtype: str
    num_classes: int
    classes: DatasetSpec | None
    preprocess: Preprocess
    input_scale: float
    input_size: Size
    seed: int
    graphs: functional.Graphs

    def draw(self, seed: int | jax.Array) -> tuple[Any, Any]:
        """Freshly drawn parameters and batch statistics: nested dicts of float32 arrays."""
        return functional.initial_arrays(_build(self.options, self.dtype, self.num_classes), seed)

    def shapes(self) -> tuple[Any, Any]:
        """What `draw` gives, as ShapeDtypeStructs."""
        return self._shapes

    @functools.cached_property
    def _shapes(self) -> tuple[Any, Any]:
        # Kept: tracing the drawing of a deep network takes a good part of a start.
        shapes: tuple[Any, Any] = jax.eval_shape(lambda: self.draw(0))
        return shapes

    def seen(self, size: Size) -> Size:
        """The size at which the network sees an image of `size`; never empty."""
        if any(self.input_size):
            return self.input_size
        height, width = (max(1, round(length * self.input_scale)) for length in size)
        return height, width

    @property
    def spec(self) -> DatasetSpec:
        """The names and colours of the classes.

        Raises:
            InputError: if the model is a classifier, which has none.
        """
        if self.classes is None:
            raise InputError(f"The network is a classifier of {self.num_classes} classes.")
        return self.classes

    @property
    def has_crf(self) -> bool:
        """Whether a CRF is the network's last layer."""
        return self.options.get("crf") is not None


def model_of(config: ml_collections.ConfigDict, classes: DatasetSpec | int) -> Model:
    """The model of a recipe; no array is made.

    Args:
        config: the recipe.
        classes: of a data set, or how many a classifier has.

    Raises:
        InputError: on names, options or sizes that are not allowed.
    """
    spec = classes if isinstance(classes, DatasetSpec) else None
    count = classes.num_classes if isinstance(classes, DatasetSpec) else classes
    options = config.model.to_dict()
    return Model(
        options=options,
        dtype=config.dtype,
        num_classes=count,
        classes=spec,
        preprocess=Preprocess(**config.preprocess),
        input_scale=config.input_scale,
        input_size=tuple(config.input_size),
        seed=config.seed,
        graphs=functional.graphs(_build(options, config.dtype, count)),
    )


def _build(options: Mapping[str, Any], dtype: str, num_classes: int) -> functional.Build:
    def build(rngs: nnx.Rngs) -> nnx.Module:
        return models.build(**options, num_classes=num_classes, dtype=dtype, rngs=rngs)

    return build


@flax.struct.dataclass
class Network:
    """A model with its weights; a pytree whose leaves are the weights.

    Attributes:
        params: nested dicts of float32 arrays.
        batch_stats: running averages of norms, likewise.
        model: the static part.
    """

    params: Any
    batch_stats: Any
    model: Model = flax.struct.field(pytree_node=False)

    def __call__(self, image: jax.Array) -> Scores:
        """Scores of images at the size that the network sees: [B, h, w, 3], 0 to 255 -> Scores."""
        module = functional.merge(self.model.graphs.inference, self.params, self.batch_stats)
        scores: Scores = module(self.model.preprocess(image), image=image)[0]
        return scores

    def sampled(self, image: jax.Array, index: jax.Array, *, samples: int) -> Scores:
        """Scores of several passes with dropout on.

        What comes before the first dropout is computed once. An image's draws depend on its place
        in the data set alone, not on its batch.

        Args:
            image: [B, h, w, 3], 0 to 255.
            index: [B], items of the data set.
            samples: N, passes.

        Returns:
            Scores [B N, h', w', K], image by image.

        Raises:
            InputError: if the network has no dropout.
        """
        modules = nnx.iter_modules(self._sampling())
        if not any(isinstance(m, nnx.Dropout) and m.rate > 0 for _, m in modules):
            raise InputError(
                "protocol samples: the network has no dropout, all passes are the same."
            )

        def of_image(image: jax.Array, index: jax.Array) -> Scores:
            image = image[None]

            def once(key: jax.Array) -> Scores:
                prepared, rngs = self.model.preprocess(image), nnx.Rngs(dropout=key)
                scores: Scores = self._sampling()(prepared, rngs=rngs, image=image)[0]
                return scores

            key = jax.random.fold_in(jax.random.key(self.model.seed), index)
            return jax.vmap(once)(jax.random.split(key, samples))

        scores: Scores = jax.vmap(of_image)(image, index)
        together: Scores = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), scores)
        return together

    def _sampling(self) -> nnx.Module:
        return functional.merge(self.model.graphs.sampling, self.params, self.batch_stats)

    def arrays(self) -> dict[str, np.ndarray]:
        """Path, such as "backbone/fc6/kernel" -> array, of all weights."""
        leaves = functional.by_path(self.params, self.batch_stats)
        return {path: np.asarray(leaf) for path, leaf in leaves.items()}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run as one of its checkpoints left it.

    Attributes:
        config: of the run.
        network: the model with the weights of the checkpoint.
        mesh: the devices; the weights are copied to all of them.
        step: of the checkpoint.
        meta: the checkpoint's metadata: data set, protocol, class weights, versions, fingerprints.
    """

    config: ml_collections.ConfigDict
    network: Network
    mesh: Mesh
    step: int
    meta: Mapping[str, Any]

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """Of the loss, or None."""
        weights = self.meta["class_weights"]
        return None if weights is None else tuple(weights)


def load(
    workdir: pathlib.Path,
    step: str = "best",
    weights: str = "raw",
    devices: Sequence[jax.Device] | None = None,
) -> Trained:
    """Reads a network from a run folder; neither the data nor the optimiser is needed.

    Args:
        workdir: the run folder.
        step: "best", "latest" or a step's number.
        weights: "raw" or "ema" (averaged).
        devices: all by default.

    Raises:
        InputError: if there is no such checkpoint, it does not fit the model, or the run keeps no
            averaged weights.
    """
    config = run_folder.read_config(workdir)
    if not (workdir / "checkpoints").is_dir():
        raise InputError(f"{workdir} has no checkpoints yet.")
    mesh = sharding.make_mesh(config.mesh.space, devices)
    checkpoints = checkpoint.Checkpoints(workdir / "checkpoints", **config.best, read_only=True)
    try:
        meta = checkpoints.read_meta()
        model = model_of(config, DatasetSpec.from_json(meta["spec"]))
        params, batch_stats = model.shapes()
        wanted = {"params": params, "batch_stats": batch_stats}
        state, meta = checkpoints.restore_fields(wanted, which=step, on=sharding.replicated(mesh))
    finally:
        checkpoints.close()
    if weights == "ema":
        if not state["ema"]:
            raise InputError("The run keeps no averaged weights (config.ema_decay is 0).")
        chosen = state["ema"]
    else:
        chosen = state
    network = Network(chosen["params"], chosen["batch_stats"], model)
    return Trained(config, network, mesh, int(state["step"]), meta)
