"""Every split of a batch over devices and parts takes the step of one device with one part."""

import functools

import jax
import pytest

from segjax import sharding
from tests import tiny

ROWS = 8
SPLITS = [
    (devices, space, parts)
    for devices in (1, 2, 4, 8)
    for space in (1, 2, 4, 8)
    for parts in (1, 2, 4, 8)
    if devices % space == 0 and ROWS // parts % (devices // space) == 0
]
"""All that there are of eight rows over 1, 2, 4 and 8 devices, in numbers of parts that fit."""


@functools.cache
def stepped(devices: int, space: int, parts: int) -> tuple:
    """Weights and scalars after a step of plain gradient descent, with augmentation on.

    Without dropout, whose keys are the parts', and batch norm, whose statistics are.
    """
    changes = {"mesh__space": space, "accumulate": parts, "optim__weight_decay": 0.0}
    training = tiny.assemble(tiny.short_config(**changes), devices)
    batch = sharding.put_batch(training.mesh, tiny.batch(5, rows=ROWS))
    ts, scalars = training.step(tiny.awake_state(training), batch)
    return jax.device_get(ts.params), jax.device_get(scalars)


def test_there_are_thirty_splits():
    assert len(SPLITS) == 30
    assert max(devices for devices, _, _ in SPLITS) == jax.device_count()


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "space", "parts"), SPLITS[1:])
def test_a_step_does_not_depend_on_the_split(devices, space, parts):
    params, scalars = stepped(devices, space, parts)
    whole, expected = stepped(1, 1, 1)
    tiny.assert_close(params, whole, 1e-6)
    tiny.assert_close(scalars, expected, 1e-6)
