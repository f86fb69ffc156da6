"""The losses of whole images, which are means over classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data.spec import VOID
from segjax.losses import dice, lovasz_softmax, options
from tests.losses import made
from tests.losses.made import K

LOSSES = {
    "dice": (dice.dice, made.dice),
    "lovasz_softmax": (lovasz_softmax.lovasz_softmax, made.lovasz_softmax),
}


def labels() -> np.ndarray:
    """All classes; one class and VOID; nothing but VOID."""
    label = made.random_label((3, 4), batch=3)
    label[1] = np.where(label[1] == VOID, VOID, 1)
    label[2] = VOID
    return label


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weights", [None, made.WEIGHTS])
@pytest.mark.parametrize("classes", options.CLASSES)
def test_losses_and_their_gradients_are_those_of_their_definitions(name, weights, classes):
    ours, definition = LOSSES[name]
    logits = np.random.default_rng(2).normal(0, 1, (3, 3, 4, K)).astype(np.float32)
    label = labels()
    given = None if weights is None else jnp.array(weights)

    def run(logits):
        return ours(made.place_of(logits, label, given), classes=classes).sum()

    total, gradient = jax.jit(jax.value_and_grad(run))(jnp.asarray(logits))
    again = functools.partial(definition, label=label, weights=weights, classes=classes)
    assert total == pytest.approx(again(logits), rel=1e-5)
    np.testing.assert_allclose(gradient, made.slope(again, logits), atol=1e-6)
    assert not np.asarray(gradient)[label == VOID].any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_certain_truth_costs_nothing_and_a_certain_error_everything(name):
    ours, _ = LOSSES[name]
    label = made.random_label((40, 50), batch=1)
    right = 100.0 * np.eye(K)[np.where(label == VOID, 0, label)]
    wrong = 100.0 * np.eye(K)[(np.where(label == VOID, 0, label) + 1) % K]
    of_right, of_wrong = (ours(made.place_of(x, label), classes="all")[0] for x in (right, wrong))
    assert of_right == pytest.approx(0, abs=1e-6)
    assert of_wrong == pytest.approx(1, abs=5e-3)
