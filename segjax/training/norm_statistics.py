"""The statistics of batch norms estimated again, over the training set, when training is done.

Running averages follow the weights with a lag and weigh the last batches most. SegNet's release
keeps none: after training it averages each layer's mean and variance over one pass through the
training set (Badrinarayanan, Kendall, Cipolla, PAMI 2017; its compute_bn_statistics). Wu, Johnson
(Rethinking "Batch" in BatchNorm, 2021, section 3.2) find the same better for others, too.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from segjax import sharding
from segjax.training.assembly import Experiment, Split, train_batches

MOST = 1000
"""Batches; beyond it a mean hardly moves, and a set may be endless."""


def batches_of(parts: Experiment, split: Split) -> int:
    """How many batches are averaged: one pass through the split, at most MOST."""
    return min(MOST, math.ceil(len(split.source) / parts.config.batch_size))


def estimate(
    parts: Experiment,
    params: Any,
    batch_stats: Any,
    split: Split,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Any:
    """Batch statistics for these parameters.

    Batches are those that training began with: augmented, of its size, and each layer sees what
    comes out of the norms before it by the batch's own statistics.

    Args:
        parts: the run.
        params, batch_stats: the weights.
        split: of training.
        progress: called with the number of batches done.

    Returns:
        The mean of each batch's statistics over `batches_of` batches, as `batch_stats`.

    Raises:
        InputError: if the network has no batch norm.
    """
    batches = train_batches(parts, split, first_step=0)
    mean = batch_stats
    for done in range(1, batches_of(parts, split) + 1):
        batch = sharding.put_batch(parts.mesh, next(batches))
        found = parts.batch_statistics(params, batch_stats, batch)
        # Not the sum: what is the same in all batches (frozen norms) stays the same to the bit.
        mean = jax.tree.map(lambda m, x, n=done: m + (x - m) / jnp.float32(n), mean, found)
        progress(done)
    return mean
