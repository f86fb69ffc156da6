"""The batches of a training, and the programs that take them."""

import math
from collections.abc import Callable, Iterator, Sequence

import jax
from absl import logging

from segjax import sharding
from segjax.data import class_weights, pipeline
from segjax.data.splits import Split
from segjax.network import Network
from segjax.training.assembly import Training
from segjax.training.state import TrainState


def weights_of_classes(name: str, split: Split) -> list[float] | None:
    """The class weights that `config.loss.class_weights` names, from the counts of a split."""
    weights = class_weights.by_name(name, split.scan)
    return None if weights is None else [float(weight) for weight in weights]


def train_batches(training: Training, split: Split, *, first_step: int) -> Iterator[pipeline.Batch]:
    """This process's training batches from `first_step` on, without end."""
    config = training.config
    return pipeline.train_batches(
        split.source,
        canvas=split.canvas,
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


def batches_of_an_epoch(training: Training, split: Split) -> int:
    """How many batches hold every example of a split once."""
    count: int = math.ceil(len(split.source) / training.config.batch_size)
    return count


def lowered(training: Training, split: Split) -> jax.stages.Lowered:
    """The training step, traced for the batches of a split; no array is made.

    Raises:
        InputError: if a loss, an augmentation or a network breaks its contract, or a batch does
            not divide among the devices.
    """
    config = training.config
    rows = pipeline.nothing(
        split.canvas, config.preprocess.mean, config.batch_size // jax.process_count()
    )
    batch = sharding.batch_shapes(training.mesh, rows)
    return training.step.lower(training.state_shapes(), batch)


def compiled(
    training: Training,
    traced: jax.stages.Lowered,
    ts: TrainState,
    eval_step: Callable,
    eval_canvases: Sequence[tuple[int, int]],
) -> Callable:
    """The compiled training step; evaluation is compiled, too.

    All of it happens before the first step, so that memory runs out now or never.

    Args:
        training: whose step it is.
        traced: of `lowered`.
        ts: the state that it begins with.
        eval_step, eval_canvases: of the evaluator, and the sizes that it will see.
    """
    config, processes = training.config, jax.process_count()
    step = traced.compile()
    logging.info(
        "%d parameters; %d images a device and step; training step: %s.",
        sum(leaf.size for leaf in jax.tree.leaves(ts.params)),
        config.batch_size // training.mesh.devices.shape[0],
        _memory(step),
    )
    network = Network(ts.params, ts.batch_stats, training.model)
    for canvas in eval_canvases:
        rows = pipeline.nothing(canvas, config.preprocess.mean, config.eval.batch_size // processes)
        jax.block_until_ready(eval_step(network, sharding.put_batch(training.mesh, rows)))
    return step


def _memory(compiled: jax.stages.Compiled) -> str:
    """What a compiled program needs on a device, in words."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return "memory unknown"
    mib = 2**20
    return (
        f"{analysis.argument_size_in_bytes / mib:.0f} MiB of arguments, "
        f"{analysis.temp_size_in_bytes / mib:.0f} MiB temporary"
    )
