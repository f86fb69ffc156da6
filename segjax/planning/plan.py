"""A recipe's training and evaluation step, compiled for a target, and what they need."""

import dataclasses
import math
import time

import jax
import ml_collections

from segjax import metrics, sharding
from segjax.arrays import Size
from segjax.compilers import operations, optimised, targets
from segjax.data import pipeline
from segjax.data.spec import DatasetSpec
from segjax.errors import InputError
from segjax.evaluation import steps
from segjax.network import Network
from segjax.training import assembly


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of device memory, on every device.

    Attributes:
        state: what lies there between two steps: parameters, optimiser, averages.
        batch: the batch as the loader gives it.
        temporary: what a program needs while it runs.
        total: all of it; results that take the place of arguments count once.
    """

    state: float
    batch: float
    temporary: float
    total: float


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program and what it needs.

    Attributes:
        memory: its memory; None if the compiler refused it for want of memory.
        operations: its floating-point operations, over all devices.
        traffic: what it moves on a device; None as above.
        seconds: the time to compile it.
    """

    memory: Memory | None
    operations: operations.Operations
    traffic: optimised.Traffic | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What of a recipe decides its programs.

    Attributes:
        config: the config.
        spec: the classes.
        canvas: (height, width) of the canvas that images are placed on.
        seen: (height, width) of the images that are evaluated.
    """

    config: ml_collections.ConfigDict
    spec: DatasetSpec
    canvas: Size
    seen: Size

    def with_changes(self, **changes: int) -> "Recipe":
        """The same with some keys changed: batch_size, accumulate or space."""
        config = self.config.copy_and_resolve_references()
        for key, value in changes.items():
            (config.mesh if key == "space" else config)[key] = value
        return dataclasses.replace(self, config=config)


def training_step(recipe: Recipe, target: targets.Target) -> Program:
    """The compiled training step.

    Raises:
        InputError: if a value is not allowed, or the batch does not divide.
    """
    config, training = recipe.config, assembled(recipe, target)
    batch = _batch_shapes(training, target, recipe.canvas, config.batch_size)
    state = training.state_shapes()
    traced = training.program.trace(state, batch)
    return _compiled(traced, target, state, batch)


def evaluation_step(recipe: Recipe, target: targets.Target) -> Program:
    """The compiled evaluation step, for a single view without a CRF behind the network."""
    training = assembled(recipe, target)
    rows = sharding.rounded_up(recipe.config.eval.batch_size, training.mesh)
    batch = _batch_shapes(training, target, recipe.seen, rows)
    state = training.state_shapes()
    network = Network(state.params, state.batch_stats, training.model)
    return _compiled(look(recipe, training).trace(network, batch), target, state, batch)


def look(recipe: Recipe, training: assembly.Training) -> jax.stages.Wrapped:
    """The evaluation step, jitted: (network, batch) -> results."""
    judge = steps.Judge(metrics.build(recipe.spec, class_weights=training.loss.class_weights))
    one = steps.Look(judge, recipe.config.loss.blocks, 0, None, training.mesh)
    return one.jitted(training.model, split=sharding.splits(training.mesh, recipe.seen[0]))


def assembled(recipe: Recipe, target: targets.Target) -> assembly.Training:
    """The recipe's training on the target's devices; creates no arrays."""
    # The weights of classes change no program.
    weighted = recipe.config.loss.class_weights not in ("", "none")
    weights = [1.0] * recipe.spec.num_classes if weighted else None
    return assembly.assemble(recipe.config, recipe.spec, weights, target.devices)


def _batch_shapes(
    training: assembly.Training, target: targets.Target, canvas: Size, rows: int
) -> dict[str, jax.ShapeDtypeStruct]:
    if rows % target.processes:
        raise InputError(
            f"A batch of {rows} images does not divide over {target.processes} processes: change "
            "the batch size or --topology."
        )
    fill = training.config.preprocess.mean
    local = pipeline.empty_batch(canvas, fill, rows // target.processes)
    return sharding.batch_shapes(training.mesh, local)


def _compiled(
    traced: jax.stages.Traced, target: targets.Target, state: object, batch: object
) -> Program:
    start = time.monotonic()
    counted = operations.of_traced(traced)
    try:
        compiled = traced.lower().compile(dict(target.options))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Program(None, counted, None, time.monotonic() - start)
    text = optimised.traffic(compiled.as_text())
    memory = _memory(compiled, state, batch)
    return Program(memory, counted, text, time.monotonic() - start)


def _memory(compiled: jax.stages.Compiled, state: object, batch: object) -> Memory:
    told = compiled.memory_analysis()
    if told is None:
        raise InputError("The compiler tells nothing of memory here: give --chip.")
    lasting, given = _bytes_on_a_device(state), _bytes_on_a_device(batch)
    results = max(0, told.output_size_in_bytes - told.alias_size_in_bytes)
    # Where an argument is not used, as the optimiser's state in evaluation, it still lies there.
    arguments = max(told.argument_size_in_bytes, lasting + given)
    temporary = told.temp_size_in_bytes
    return Memory(lasting, given, temporary, arguments + results + temporary)


def _bytes_on_a_device(arrays: object) -> float:
    total = 0
    for leaf in jax.tree.leaves(arrays):
        shape = leaf.sharding.shard_shape(leaf.shape)
        total += leaf.dtype.itemsize * math.prod(shape)
    return total
