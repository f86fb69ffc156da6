"""The statistics of batch norms estimated again, over the training set, when training is done.

Running averages follow the weights with a lag and weigh the last batches most. SegNet's release
keeps none: after training it averages each layer's mean and variance over one pass through the
training set (Badrinarayanan, Kendall, Cipolla, PAMI 2017; its compute_bn_statistics). Wu, Johnson
(Rethinking "Batch" in BatchNorm, 2021, section 3.2) find the same better for others, too.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from segjax import sharding
from segjax.data.splits import Split
from segjax.network import Network
from segjax.training import inputs
from segjax.training.assembly import Training

MOST = 1000
"""Batches; with more of them a mean hardly moves, and a set may be endless."""


def batches_of(training: Training, split: Split) -> int:
    """How many batches are averaged: one pass through the split, at most MOST."""
    return min(MOST, inputs.batches_of_an_epoch(training, split))


def estimated(
    network: Network,
    training: Training,
    split: Split,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Network:
    """The network with batch statistics estimated for its parameters.

    Batches are those that training began with: augmented, of its size, and each layer sees what
    comes out of the norms before it by the batch's own statistics.

    Args:
        network: of the run.
        training: says how batches are made.
        split: of training.
        progress: called with the number of batches done.

    Returns:
        The network with the mean of each batch's statistics over `batches_of` batches.

    Raises:
        InputError: if the network has no batch norm.
    """
    batches = inputs.train_batches(training, split, first_step=0)
    mean = network.batch_stats
    for done in range(1, batches_of(training, split) + 1):
        batch = sharding.put_batch(training.mesh, next(batches))
        found = training.batch_statistics(network, batch)
        # Not the sum: what is the same in all batches (frozen norms) stays the same to the bit.
        mean = jax.tree.map(lambda m, x, n=done: m + (x - m) / jnp.float32(n), mean, found)
        progress(done)
    return dataclasses.replace(network, batch_stats=mean)
