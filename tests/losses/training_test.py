"""Every loss trains a network."""

import jax
import numpy as np
import pytest

from tests import tiny
from tests.losses import made

VARIANTS = {name: {"loss__name": name} for name in made.EVERY} | {
    "smoothed, with dice": {"loss__label_smoothing": 0.1, "loss__also": (("dice", 0.5),)},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_batch_is_learned(name):
    schedule = {"optim__name": "adamw", "optim__lr": 0.03, "optim__schedule": "constant"}
    training = tiny.assemble(tiny.short_config(**schedule, **VARIANTS[name]))
    ts, batch = training.initial_state(), tiny.batch(0)
    batch["position"][:] = 7  # the same augmentation in every step
    seen = []
    for _ in range(12):
        ts, scalars = training.step(ts, batch)
        seen.append(jax.device_get(scalars))
    found = [float(step["loss"]) for step in seen]
    assert np.isfinite(found).all()
    assert found[-1] < 0.97 * found[0]
    assert all(step["skipped"] == 0 for step in seen)
