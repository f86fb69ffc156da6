"""Training batches and the compiled programs that consume them."""

import math
from collections.abc import Callable

import jax
from absl import logging

from segjax import sharding
from segjax.data import class_weights, pipeline
from segjax.data.splits import Split
from segjax.training.assembly import Training
from segjax.training.state import TrainState


def weights_of_classes(name: str, split: Split) -> list[float] | None:
    """Class weights named by `config.loss.class_weights`, from the class counts of a split."""
    weights = class_weights.by_name(name, split.scan)
    return None if weights is None else [float(weight) for weight in weights]


def train_batches(training: Training, split: Split, *, first_step: int) -> pipeline.Stream:
    """An endless iterator over this process's training batches from `first_step` on; close it."""
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
    """Number of batches in one epoch of a split, rounded up."""
    count: int = math.ceil(len(split.source) / training.config.batch_size)
    return count


def lowered(training: Training, split: Split) -> jax.stages.Lowered:
    """The training step traced for the batches of a split; creates no arrays.

    Raises:
        InputError: if a loss, augmentation or network breaks its contract, or the batch size is
            not divisible by the number of devices.
    """
    config = training.config
    rows = pipeline.empty_batch(
        split.canvas, config.preprocess.mean, config.batch_size // jax.process_count()
    )
    batch = sharding.batch_shapes(training.mesh, rows)
    return training.step.lower(training.state_shapes(), batch)


def compiled(training: Training, traced: jax.stages.Lowered, ts: TrainState) -> Callable:
    """The compiled training step; logs what it needs.

    Args:
        training: the training.
        traced: result of `lowered`.
        ts: the initial state.
    """
    step = traced.compile()
    logging.info(
        "%d parameters; %d images per device and step; training step: %s.",
        sum(leaf.size for leaf in jax.tree.leaves(ts.params)),
        training.config.batch_size // training.mesh.devices.shape[0],
        _memory(step),
    )
    return step


def _memory(compiled: jax.stages.Compiled) -> str:
    """Device memory of a compiled program as text."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return "memory unknown"
    mib = 2**20
    return (
        f"{analysis.argument_size_in_bytes / mib:.0f} MiB of arguments, "
        f"{analysis.temp_size_in_bytes / mib:.0f} MiB temporary"
    )
