"""Checks before training: errors are raised before anything is written."""

import dataclasses
import pathlib
from typing import Any

import jax
import ml_collections

from segjax import errors, initial_weights, metrics
from segjax.compilers import operations
from segjax.configuration import keys, vocabulary
from segjax.data import catalog
from segjax.data.splits import Split, check_trainable, open_split
from segjax.errors import InputError
from segjax.evaluation import protocol as protocols
from segjax.evaluation.evaluator import Evaluator
from segjax.runs import checkpoint, data_record, run_folder
from segjax.training import assembly, inputs

TRAIN_SCALARS = ("loss", "grad_norm", "lr", "valid", "skipped")
"""Names of the scalars that `steps.train_step` returns for every network."""


@dataclasses.dataclass(frozen=True)
class Accepted:
    """A training that passed every check.

    Attributes:
        training: the static part of the training.
        step: the lowered training step, or several: see `inputs.dispatched`.
        operations: floating-point operations of a step, over all devices.
        train, val: the splits for training and for evaluation.
        evaluator: evaluator under the config's protocol.
        start: initial weights, or None.
        meta: metadata for every checkpoint.
    """

    training: assembly.Training
    step: jax.stages.Lowered
    operations: operations.Operations
    train: Split
    val: Split
    evaluator: Evaluator
    start: initial_weights.Start | None
    meta: dict[str, Any]


def accept(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Accepted:
    """Checks config, data, network, loss, metrics, protocol, CRF and weights; writes nothing.

    Args:
        config: the recipe; its `preprocess` and, if `init.network` says so, its `model` are set to
            those of the initial weights.
        workdir: run folder, new or from the same run.

    Raises:
        InputError: naming the key or file, and what is allowed.
    """
    keys.check(config)
    vocabulary.check_weights(config)
    start = initial_weights.start_of(config)
    initial_weights.adopt_preprocess(config, start, workdir)
    dataset = catalog.load(**config.data)
    initial_weights.adopt_network(config, start, dataset.spec, workdir)
    run_folder.check(workdir, config)
    cache = config.loader.cache
    train = open_split(dataset, config.train_split, cache=cache, named_by="config.train_split")
    val = open_split(dataset, config.eval.split, cache=cache, named_by="config.eval.split")
    check_trainable(train, val)
    weights = inputs.weights_of_classes(config.loss.class_weights, train)
    training = assembly.assemble(config, dataset.spec, weights)
    bucket = protocols.run_bucket(config, val.scan.sizes)
    protocol = protocols.resolve(config, bucket)
    evaluator = Evaluator(
        config,
        training.model,
        training.mesh,
        val,
        protocol,
        class_weights=training.loss.class_weights,
    )
    check_watched(config, evaluator)
    before = _trained_before(workdir, config)
    if before is not None:
        _check_data(workdir, before, train, val)
    elif start is not None:
        start.check(training.model)
    meta = {
        "spec": dataset.spec.to_json(),
        "class_weights": weights,
        "protocol": protocol.to_json(),
        "bucket": bucket,
        "data": {"train": train.scan.fingerprint, "eval": val.scan.fingerprint},
        "versions": run_folder.versions(),
    }
    step = inputs.traced(training, train)
    counted = operations.of_traced(step)
    lowered = inputs.dispatched(training, train, step)
    return Accepted(training, lowered, counted, train, val, evaluator, start, meta)


def _trained_before(
    workdir: pathlib.Path, config: ml_collections.ConfigDict
) -> dict[str, Any] | None:
    """Metadata of the newest checkpoint in a run folder, or None without a checkpoint."""
    directory = workdir / "checkpoints"
    if not checkpoint.steps_in(directory):
        return None
    with checkpoint.Checkpoints(directory, **config.best, read_only=True) as checkpoints:
        return checkpoints.read_meta()


def _check_data(workdir: pathlib.Path, before: dict[str, Any], train: Split, val: Split) -> None:
    """Checks that the data are those that the run was trained on before."""
    for key, split in (("train", train), ("eval", val)):
        error = data_record.refusal(workdir, before, key, split.name, split.scan)
        if error is not None:
            raise error


def check_watched(config: ml_collections.ConfigDict, evaluator: Evaluator) -> None:
    """Checks that `best` and `stop` in the config name scalars of the run.

    Raises:
        InputError: naming the key and the available scalars.
    """
    scores = metrics.scalar_names(evaluator.metrics)
    if evaluator.protocol.crf is not None:
        scores.append("miou_before_crf")
    known = [f"eval/{name}" for name in scores]
    if config.ema_decay > 0:
        known += [f"eval_ema/{name}" for name in scores]
    known += [f"train/{name}" for name in TRAIN_SCALARS]
    for key in ("best", "stop"):
        name = config[key].metric
        if name not in known:
            raise InputError(
                f"config.{key}.metric: no scalar is called {name!r}; there are "
                f"{', '.join(known)}.{errors.near(name, known)}"
            )
