"""Statistics of batch norms that are estimated again."""

import jax
import numpy as np
import pytest

from segjax import sharding
from segjax.errors import InputError
from segjax.training import inputs, norm_statistics
from tests import programs, tiny
from tests.evaluation import made


def assembled(**trunk):
    backbone = {"name": "tests.tiny:Trunk", "batch_norm": True, "dropout": 0.0} | trunk
    return tiny.assemble(tiny.config(model__backbone=backbone))


def test_statistics_of_a_batch_are_what_training_finds_in_it():
    """A training step keeps 0.9 of the old ones: what it adds is a tenth of the batch's."""
    training = assembled()
    ts, batch = tiny.awake_state(training), tiny.batch(3)
    old = jax.device_get(ts.batch_stats)
    found = training.batch_statistics(tiny.network(training, ts), batch)
    after, _ = training.step(ts, batch)
    expected = jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, after.batch_stats, old)
    tiny.assert_close(found, expected, 1e-5)
    assert np.abs(tiny.by_name(found)["backbone/norm/mean"]).max() > 0.01


def test_a_network_without_batch_norm_is_refused():
    bare = assembled(batch_norm=False)
    with pytest.raises(InputError, match="no batch norm"):
        bare.batch_statistics(tiny.network(bare), tiny.batch(3))


@pytest.fixture(scope="module")
def scene():
    backbone = {"name": "tests.tiny:Trunk", "batch_norm": True, "dropout": 0.5}
    return made.on_scenes(programs.config(model__backbone=backbone), devices=2)


def test_one_pass_over_the_split_is_averaged(scene, monkeypatch):
    monkeypatch.setattr(norm_statistics, "batches_of", lambda *_: 3)
    training, network, seen = scene.training, scene.network, []
    found = norm_statistics.estimated(network, training, scene.split, progress=seen.append)
    assert seen == [1, 2, 3]
    stream = inputs.train_batches(training, scene.split, first_step=0)
    each = [
        training.batch_statistics(network, sharding.put_batch(training.mesh, next(stream)))
        for _ in range(3)
    ]
    expected = jax.tree.map(lambda *x: np.mean(np.asarray(x, np.float64), 0), *each)
    tiny.assert_close(found.batch_stats, expected, 1e-6)
    tiny.assert_same_bits(found.params, network.params)
    assert found.model is network.model


def test_a_pass_holds_every_image_once():
    class Split:
        source = range(17)

    class Training:
        config = tiny.config(batch_size=8)

    assert norm_statistics.batches_of(Training, Split) == 3
    Split.source = range(10**6)
    assert norm_statistics.batches_of(Training, Split) == norm_statistics.MOST
