"""Re-estimation of batch norm statistics on the training set after training.

Running averages lag behind the weights and give the last batches the highest weight. SegNet's
release does not use them: after training it averages the mean and variance of each layer over one
epoch (Badrinarayanan, Kendall, Cipolla, PAMI 2017; compute_bn_statistics in the release). Wu and
Johnson (Rethinking "Batch" in BatchNorm, 2021, section 3.2) report gains for other networks too.
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
"""Largest number of batches to average; more would hardly change the mean."""


def batches_of(training: Training, split: Split) -> int:
    """Number of batches to average: one epoch of the split, at most MOST."""
    return min(MOST, inputs.batches_of_an_epoch(training, split))


def estimated(
    network: Network,
    training: Training,
    split: Split,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Network:
    """Re-estimates the batch norm statistics of a network.

    The batches are the first ones of the training, augmented in the same way, and every layer
    normalises by the statistics of the batch, as in training.

    Args:
        network: the trained network.
        training: the training.
        split: the training split.
        progress: called with the number of batches done.

    Returns:
        The network with statistics averaged over `batches_of` batches.

    Raises:
        InputError: if the network has no batch norm.
    """
    batches = inputs.train_batches(training, split, first_step=0)
    mean = network.batch_stats
    for done in range(1, batches_of(training, split) + 1):
        batch = sharding.put_batch(training.mesh, next(batches))
        statistics = training.batch_statistics(network, batch)
        # A running mean, so that statistics equal in all batches (frozen norms) stay bit-identical.
        mean = jax.tree.map(lambda m, x, n=done: m + (x - m) / jnp.float32(n), mean, statistics)
        progress(done)
    batches.close()
    return dataclasses.replace(network, batch_stats=mean)
