"""From a config to the parts of a run: what training, evaluation and prediction share."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
from absl import logging
from flax import nnx
from jax.sharding import Mesh

from segjax import losses, models, sharding
from segjax.crf import Refinement
from segjax.data import catalog, class_weights, pipeline, scan, sources
from segjax.data.spec import DatasetSpec
from segjax.errors import InputError
from segjax.evaluation import steps as eval_steps
from segjax.models import functional
from segjax.models.preprocess import Preprocess
from segjax.runs import checkpoint, run_folder
from segjax.training import augment, optim, state
from segjax.training import steps as train_steps


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of a run.

    Attributes:
        config: the resolved config.
        spec: of the data set.
        class_weights: of the loss, or None.
        mesh: the devices.
        build: draws a network, in training mode.
        optimizer: directions and schedule.
        preprocess: RGB to network input.
        train_step: jitted (state, batch) -> (state, scalars); the state is donated.
        eval_step: jitted (params, batch_stats, batch) -> prediction and counts.
        step_under: (samples, `Refinement` or None) -> the same as `eval_step`, of that many passes
            with dropout and with that CRF behind them; one of each is kept.
        refine_under: (`Refinement`) -> jitted (image, logits, label, size) -> the same, of
            scores that are there already; for one process's devices.
        batch_statistics: jitted (params, batch_stats, training batch) -> the batch's own.
        network: (params, batch_stats, float [B, H, W, 3] in 0 to 255) -> Scores, not jitted.
        judge: (logits, label) -> prediction and counts, not jitted: see `eval_steps.judge`.
    """

    config: ml_collections.ConfigDict
    spec: DatasetSpec
    class_weights: tuple[float, ...] | None
    mesh: Mesh
    build: Callable[[nnx.Rngs], nnx.Module]
    optimizer: optim.Optimizer
    preprocess: Preprocess
    train_step: Callable
    eval_step: Callable
    step_under: Callable[..., Callable]
    refine_under: Callable[..., Callable]
    batch_statistics: Callable
    network: Callable
    judge: Callable

    def initial_state(self) -> state.TrainState:
        """The state before the first step."""
        return state.create(
            self.build,
            self.optimizer.tx,
            seed=self.config.seed,
            ema=self.config.ema_decay > 0,
            mesh=self.mesh,
        )

    def state_shapes(self) -> state.TrainState:
        """The target of a restore."""
        ema = self.config.ema_decay > 0
        return state.shapes(self.build, self.optimizer.tx, ema=ema, mesh=self.mesh)


def open_checkpoints(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, *, read_only: bool = False
) -> checkpoint.Checkpoints:
    """The checkpoints of a run folder."""
    return checkpoint.Checkpoints(workdir / "checkpoints", **config.best, read_only=read_only)


def assemble(
    config: ml_collections.ConfigDict,
    spec: DatasetSpec,
    class_weights: Sequence[float] | None,
    devices: list[jax.Device] | None = None,
) -> Experiment:
    """Builds the parts; no arrays are made and nothing is compiled yet.

    Raises:
        InputError: on names, options or sizes that are not allowed.
    """
    mesh = sharding.make_mesh(config.mesh.space, devices)

    def build(rngs: nnx.Rngs) -> nnx.Module:
        return models.build(
            **config.model, num_classes=spec.num_classes, dtype=config.dtype, rngs=rngs
        )

    if config.batch_size % config.accumulate:
        raise InputError(
            f"config.accumulate {config.accumulate} does not divide batch_size {config.batch_size}."
        )
    params = jax.eval_shape(lambda: functional.initial_arrays(build, config.seed)[0])
    optimizer = optim.build(**config.optim, params=params, total_steps=config.total_steps)
    preprocess = Preprocess(**config.preprocess)
    weights = None if class_weights is None else tuple(class_weights)
    loss = losses.Loss(**{**config.loss, "class_weights": weights})
    seen = {"base_scale": config.input_scale, "base_size": config.input_size}
    graph, frozen = functional.graphs(build)
    view = {
        "graph": graph,
        "preprocess": preprocess,
        "augmentation": augment.Augment(**config.augment, **seen),
        "seed": config.seed,
    }
    train = functools.partial(
        train_steps.train_step,
        **view,
        optimizer=optimizer,
        loss=loss,
        accumulate=config.accumulate,
        ema_decay=config.ema_decay,
    )
    return Experiment(
        config=config,
        spec=spec,
        class_weights=weights,
        mesh=mesh,
        build=build,
        optimizer=optimizer,
        preprocess=preprocess,
        train_step=jax.jit(train, donate_argnums=0),
        batch_statistics=jax.jit(functools.partial(train_steps.batch_statistics, **view)),
        **_evaluation(build, frozen, preprocess, loss, config, spec, mesh),
    )


def _evaluation(build, graph, preprocess, loss, config, spec, mesh) -> dict[str, Callable]:
    """`eval_step`, `step_under`, `network` and `judge` of an `Experiment`."""
    network = functools.partial(eval_steps.network, graph=graph, preprocess=preprocess)
    judge = functools.partial(
        eval_steps.judge, num_classes=spec.num_classes, class_weights=loss.class_weights
    )
    evaluate = functools.partial(
        eval_steps.eval_step,
        network=network,
        judge=judge,
        blocks=loss.blocks,
        input_scale=config.input_scale,
        fixed_size=config.input_size,
    )
    # Counts go to every process whole; each keeps the label maps of its own rows.
    whole, by_pixel = sharding.replicated(mesh), sharding.batch_sharding(mesh, "label")
    own = {} if config.model.get("crf") is None else {"crf_vertices_wanted": whole}

    @functools.cache
    def step_under(samples: int = 0, crf: Refinement | None = None) -> Callable:
        shardings = dict.fromkeys(eval_steps.COUNTS, whole) | {"prediction": by_pixel} | own
        more = {}
        if samples:
            more["sampled"] = functools.partial(
                eval_steps.sampled,
                graph=functional.sampling_graph(build),
                preprocess=preprocess,
                samples=samples,
                seed=config.seed,
            )
            shardings["uncertainty"] = by_pixel
        if crf is not None:
            more["crf"] = sharding.by_rows(crf, mesh)
            shardings |= {"before": by_pixel, "confusion_before": whole, "overflow": whole}
        return jax.jit(functools.partial(evaluate, **more), out_shardings=shardings)

    @functools.cache
    def refine_under(crf: Refinement) -> Callable:
        def refine(image, logits, label, size):
            logits, more = eval_steps.refined(image, logits, label, size, crf)
            return judge(logits, label) | more

        return jax.jit(refine)

    return {
        "eval_step": step_under(),
        "step_under": step_under,
        "refine_under": refine_under,
        "network": network,
        "judge": judge,
    }


@dataclasses.dataclass(frozen=True)
class Split:
    """A part of a data set, and what its scan found."""

    source: sources.Source
    scan: scan.Scan


def open_split(dataset: catalog.Dataset, config: ml_collections.ConfigDict, split: str) -> Split:
    """Opens and checks a split.

    Raises:
        InputError: if there is no such split, or something is wrong with its files.
    """
    source = dataset.splits[split]
    found = scan.scan(source, dataset.spec, name=f"{dataset.spec.name}/{split}")
    return Split(sources.CachedSource(source) if config.loader.cache else source, found)


def weights_of(config: ml_collections.ConfigDict, found: scan.Scan) -> list[float] | None:
    """The class weights that `config.loss.class_weights` names."""
    weights = class_weights.by_name(config.loss.class_weights, found)
    return None if weights is None else [float(w) for w in weights]


def train_batches(parts: Experiment, split: Split, *, first_step: int) -> Iterator[pipeline.Batch]:
    """This process's training batches from `first_step` on."""
    config = parts.config
    return pipeline.train_batches(
        split.source,
        canvas=_canvas(split),
        fill=config.preprocess.mean,
        batch_size=config.batch_size,
        seed=config.seed,
        first_step=first_step,
        process=jax.process_index(),
        processes=jax.process_count(),
        threads=config.loader.threads,
        workers=config.loader.workers,
        prefetch=config.loader.prefetch,
    )


def compile_steps(
    parts: Experiment,
    ts: state.TrainState,
    split: Split,
    eval_step: Callable,
    eval_canvases: Sequence[tuple[int, int]],
) -> Callable:
    """Compiles training and evaluation before step 0, so that memory runs out now or never.

    Returns:
        The compiled training step.
    """
    config, processes = parts.config, jax.process_count()
    fill = config.preprocess.mean
    rows = pipeline.nothing(_canvas(split), fill, config.batch_size // processes)
    step_fn = parts.train_step.lower(ts, sharding.put_batch(parts.mesh, rows)).compile()
    logging.info(
        "%d parameters; %d images a device and step; training step: %s.",
        sum(leaf.size for leaf in jax.tree.leaves(ts.params)),
        config.batch_size // parts.mesh.devices.shape[0],
        _memory(step_fn),
    )
    for canvas in eval_canvases:
        rows = pipeline.nothing(canvas, fill, config.eval.batch_size // processes)
        batch = sharding.put_batch(parts.mesh, rows)
        jax.block_until_ready(eval_step(ts.params, ts.batch_stats, batch))
    return step_fn


def _canvas(split: Split) -> tuple[int, int]:
    height, width = split.scan.sizes.max(axis=0)
    return int(height), int(width)


def _memory(compiled: jax.stages.Compiled) -> str:
    """What a compiled program needs on a device."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return "memory unknown"
    mib = 2**20
    return (
        f"{analysis.argument_size_in_bytes / mib:.0f} MiB of arguments, "
        f"{analysis.temp_size_in_bytes / mib:.0f} MiB temporary"
    )


def restore(
    workdir: pathlib.Path, which: str
) -> tuple[Experiment, state.TrainState, dict[str, Any]]:
    """A run as its checkpoint `which` left it: parts, state and metadata; the data is not needed.

    Raises:
        InputError: if there is no such checkpoint, or it does not fit the model.
    """
    config = run_folder.read_config(workdir)
    if not (workdir / "checkpoints").is_dir():
        raise InputError(f"{workdir} has no checkpoints yet.")
    checkpoints = open_checkpoints(config, workdir, read_only=True)
    try:
        meta = checkpoints.read_meta()
        weights = meta["class_weights"]
        parts = assemble(config, DatasetSpec.from_json(meta["spec"]), weights)
        return parts, *checkpoints.restore(parts.state_shapes(), which)
    finally:
        checkpoints.close()
