"""Training batches and the compiled programs that consume them."""

import math

import jax
from absl import logging

from segjax import sharding, units
from segjax.compilers import optimised
from segjax.data import class_weights, pipeline
from segjax.data.splits import Split
from segjax.training import dispatch
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


def traced(training: Training, split: Split) -> jax.stages.Traced:
    """The training step traced for the batches of a split; creates no arrays.

    Raises:
        InputError: if a loss, augmentation or network breaks its contract, or the batch size is
            not divisible by the number of devices.
    """
    batch = sharding.batch_shapes(training.mesh, _nothing(training, split))
    return training.program.trace(training.state_shapes(), batch)


def dispatched(training: Training, split: Split, step: jax.stages.Traced) -> jax.stages.Lowered:
    """The program that the run dispatches: `step`, or several of them."""
    most = training.config.steps_per_dispatch
    if most == 1:
        single: jax.stages.Lowered = step.lower()
        return single
    rows = dispatch.stacked([_nothing(training, split)], most)
    batches = sharding.batch_shapes(training.mesh, rows, stacked=True)
    number = jax.ShapeDtypeStruct((), "int32", sharding=sharding.replicated(training.mesh))
    lowered: jax.stages.Lowered = training.program_of_several.lower(
        training.state_shapes(), batches, number, number
    )
    return lowered


def _nothing(training: Training, split: Split) -> pipeline.Batch:
    """This process's rows of a batch without images."""
    config = training.config
    rows = config.batch_size // jax.process_count()
    return pipeline.empty_batch(split.canvas, config.preprocess.mean, rows)


def compiled(
    training: Training, lowered: jax.stages.Lowered, ts: TrainState
) -> jax.stages.Compiled:
    """The compiled training step; logs what it needs, of what and of whom.

    Args:
        training: the training.
        lowered: result of `dispatched`.
        ts: the initial state.
    """
    step = lowered.compile()
    (data, space), images = training.mesh.devices.shape, training.config.batch_size
    devices = list(training.mesh.devices.flat)
    logging.info(
        "%d x %s in %d processes, a mesh of %d x %d (data x space); %d images a process and step.",
        len(devices),
        devices[0].device_kind,
        jax.process_count(),
        data,
        space,
        images // jax.process_count(),
    )
    logging.info(
        "%d parameters; %d images per device and step; training step: %s%s.",
        sum(leaf.size for leaf in jax.tree.leaves(ts.params)),
        images // data,
        _memory(step),
        _collectives(step) if len(devices) > 1 else "",
    )
    return step


def _collectives(compiled: jax.stages.Compiled) -> str:
    """What the devices exchange in a step."""
    found = optimised.traffic(compiled.as_text() or "").collectives
    return "".join(f"; {c.count} {c.kind} of {units.si(c.bytes, 'B')} together" for c in found)


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
