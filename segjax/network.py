"""A network for evaluation, prediction, export, heat maps and scripts.

`Model` is the static part; `Network` adds the weights and is a pytree, so that it can be passed to
a jitted function: `jax.jit(lambda net, image: net(image))(network, x)`.
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
    """The static part of a network, without weights.

    Two models are equal only if they are the same object, so that jit can look up a compiled
    program without comparing graphs.

    Attributes:
        options: `config.model`, as plain data.
        dtype: dtype of the computation, "float32" or "bfloat16".
        num_classes: K.
        classes: class names and colours; None for a classifier.
        preprocess: preprocessing of RGB images, 0 to 255, for the backbone.
        input_scale: scale at which the network sees images.
        input_size: (height, width) at which the network sees images, in place of a scale; (0, 0)
            for none.
        seed: seed of the dropout masks in `Network.sampled`.
        graphs: graphs that `functional.merge` joins with weights.
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
        """Random parameters and initial batch statistics: nested dicts of float32 arrays."""
        return functional.initial_arrays(_build(self.options, self.dtype, self.num_classes), seed)

    def shapes(self) -> tuple[Any, Any]:
        """The result of `draw` as ShapeDtypeStructs."""
        return self._shapes

    @functools.cached_property
    def _shapes(self) -> tuple[Any, Any]:
        # Cached, because tracing the initialisation of a deep network is slow.
        shapes: tuple[Any, Any] = jax.eval_shape(lambda: self.draw(0))
        return shapes

    def seen(self, size: Size) -> Size:
        """The size at which the network sees an image of `size`; each side is at least 1."""
        if any(self.input_size):
            return self.input_size
        height, width = (max(1, round(length * self.input_scale)) for length in size)
        return height, width

    @property
    def spec(self) -> DatasetSpec:
        """The class names and colours.

        Raises:
            InputError: if the model is a classifier.
        """
        if self.classes is None:
            raise InputError(f"The network is a classifier of {self.num_classes} classes.")
        return self.classes

    @property
    def has_crf(self) -> bool:
        """Whether a CRF is the network's last layer."""
        return self.options.get("crf") is not None


def model_of(config: ml_collections.ConfigDict, classes: DatasetSpec | int) -> Model:
    """The model of a recipe; creates no arrays.

    Args:
        config: the recipe.
        classes: classes of a data set, or number of classes of a classifier.

    Raises:
        InputError: if a name, option or size is not allowed.
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
        batch_stats: running averages of batch norms, nested dicts of float32 arrays.
        model: the static part.
    """

    params: Any
    batch_stats: Any
    model: Model = flax.struct.field(pytree_node=False)

    def __call__(self, image: jax.Array) -> Scores:
        """Scores of images, RGB 0 to 255 at the network's input size: [B, h, w, 3] -> Scores."""
        module = functional.merge(self.model.graphs.inference, self.params, self.batch_stats)
        scores: Scores = module(self.model.preprocess(image), image=image)[0]
        return scores

    def sampled(self, image: jax.Array, number: jax.Array, *, samples: int) -> Scores:
        """Scores of several passes with dropout on.

        Layers before the first dropout run once. The dropout masks of an image depend on its
        number and the model's seed alone.

        Args:
            image: [B, h, w, 3], RGB, 0 to 255.
            number: uint32 [B], a number for each image.
            samples: N, number of passes.

        Returns:
            Scores [B N, h', w', K], image by image.

        Raises:
            InputError: if the network has no dropout.
        """
        modules = nnx.iter_modules(self._sampling())
        if not any(isinstance(m, nnx.Dropout) and m.rate > 0 for _, m in modules):
            raise InputError(
                "protocol samples: the network has no dropout; all passes would be equal."
            )

        def sample_image(image: jax.Array, number: jax.Array) -> Scores:
            image = image[None]

            def sample(key: jax.Array) -> Scores:
                prepared, rngs = self.model.preprocess(image), nnx.Rngs(dropout=key)
                scores: Scores = self._sampling()(prepared, rngs=rngs, image=image)[0]
                return scores

            key = jax.random.fold_in(jax.random.key(self.model.seed), number)
            return jax.vmap(sample)(jax.random.split(key, samples))

        scores: Scores = jax.vmap(sample_image)(image, number)
        together: Scores = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), scores)
        return together

    def _sampling(self) -> nnx.Module:
        return functional.merge(self.model.graphs.sampling, self.params, self.batch_stats)

    def arrays(self) -> dict[str, np.ndarray]:
        """All weights: path, such as "backbone/fc6/kernel", -> array."""
        leaves = functional.by_path(self.params, self.batch_stats)
        return {path: np.asarray(leaf) for path, leaf in leaves.items()}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network with its config and metadata, from a checkpoint of a run.

    Attributes:
        config: config of the run.
        network: model with the weights of the checkpoint.
        mesh: devices; the weights are replicated on all of them.
        step: training step of the checkpoint.
        meta: metadata of the checkpoint: data set, protocol, class weights, versions, fingerprints.
    """

    config: ml_collections.ConfigDict
    network: Network
    mesh: Mesh
    step: int
    meta: Mapping[str, Any]

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """Class weights of the loss, or None."""
        weights = self.meta["class_weights"]
        return None if weights is None else tuple(weights)

    @property
    def bucket(self) -> int:
        """The bucket of the run, see `evaluation.protocol.run_bucket`.

        Runs that do not store it have that of the protocol they were evaluated under.
        """
        known: int = self.meta.get("bucket", self.meta["protocol"]["bucket"])
        return known


def load(
    workdir: pathlib.Path,
    step: str = "best",
    weights: str = "raw",
    devices: Sequence[jax.Device] | None = None,
) -> Trained:
    """Reads a network from a run folder; neither the data nor the optimiser is needed.

    Args:
        workdir: the run folder.
        step: "best", "latest" or the number of a step.
        weights: "raw" or "ema" (averaged).
        devices: devices to use; None for all.

    Raises:
        InputError: if the checkpoint does not exist or does not fit the model, or the run keeps no
            averaged weights.
    """
    config = run_folder.read_config(workdir)
    directory = workdir / "checkpoints"
    if not directory.is_dir():
        raise InputError(f"{workdir} has no checkpoints yet.")
    mesh = sharding.make_mesh(config.mesh.space, devices, at_most=True)
    with checkpoint.Checkpoints(directory, **config.best, read_only=True) as checkpoints:
        meta = checkpoints.read_meta()
        model = model_of(config, DatasetSpec.from_json(meta["spec"]))
        params, batch_stats = model.shapes()
        shapes = {"params": params, "batch_stats": batch_stats}
        state, meta = checkpoints.restore_fields(shapes, which=step, on=sharding.replicated(mesh))
    if weights == "ema":
        if not state["ema"]:
            raise InputError("The run keeps no averaged weights (config.ema_decay is 0).")
        chosen = state["ema"]
    else:
        chosen = state
    network = Network(chosen["params"], chosen["batch_stats"], model)
    return Trained(config, network, mesh, int(state["step"]), meta)
