"""What a step computes again rather than keep."""

import jax
import pytest

from segjax import sharding
from segjax.compilers import operations
from segjax.configuration import loading
from tests import tiny


def training_of(remat: str, name: str = "", **changes):
    if not name:
        return tiny.assemble(tiny.config(remat=remat, **changes))
    made = loading.load(f"{name}:smoke")
    made.remat, made.augment.size, made.batch_size = remat, tiny.SIZE, 8
    return tiny.assemble(made)


@pytest.mark.parametrize("name", ["", "segnet", "deeplab_v3_resnet50"])
def test_a_step_gives_the_same_whatever_it_keeps(name):
    results, counts = [], {}
    for rule in ("none", "norms", "blocks"):
        training = training_of(rule, name)
        batch = sharding.put_batch(training.mesh, tiny.batch(0))
        traced = training.step.trace(training.state_shapes(), batch)
        counts[rule] = operations.of_traced(traced)
        results.append(jax.device_get(training.step(tiny.awake_state(training), batch)))
    for result in results[1:]:
        tiny.assert_close(result, results[0], 1e-4)
    assert counts["none"].products == counts["norms"].products == counts["blocks"].products
    assert counts["none"].again == counts["norms"].again
    # The products of the backward pass are twice those of the forward one, but for the first layer.
    more = counts["blocks"].again - counts["none"].again
    assert 0.1 * counts["none"].products < more < 0.4 * counts["none"].products
