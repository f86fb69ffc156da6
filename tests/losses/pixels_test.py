import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data.spec import VOID
from segjax.losses import focal, pixels
from tests.losses import made
from tests.losses.made import K


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[[[1.0, 1.0, 2.0], [1.0, 2.0, 1.0], [5.0, 5.0, 90.0]]]]))
    label = jnp.array([[[2, 0, VOID]]], jnp.uint8)
    np.testing.assert_allclose(
        pixels.cross_entropy(logits, label)[0, 0], [np.log(2), np.log(4), 0], rtol=1e-6
    )
    assert pixels.count(label) == 2
    weights = jnp.array([3.0, 1.0, 0.5])
    np.testing.assert_allclose(
        pixels.cross_entropy(logits, label, weights)[0, 0],
        [0.5 * np.log(2), 3 * np.log(4), 0],
        rtol=1e-6,
    )
    assert pixels.count(label, weights) == 3.5


@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 4.0)])
def test_cross_entropy_and_its_gradient_are_those_of_float64(weights):
    logits = np.random.default_rng(0).normal(0, 30, (2, 6, 7, K)).astype(np.float32)
    label = made.random_label((6, 7))
    given = None if weights is None else jnp.array(weights)

    def run(logits):
        return pixels.cross_entropy(logits, jnp.asarray(label), given).sum()

    total, gradient = jax.value_and_grad(run)(jnp.asarray(logits))
    assert total == pytest.approx(made.cross_entropy(logits, label, weights), rel=1e-6)
    expected = made.cross_entropy_gradient(logits, label, weights)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert not np.asarray(gradient)[label == VOID].any()


def test_logits_of_bfloat16_are_summed_in_float32():
    logits, label = jnp.full((1, 64, 64, K), 0.1, jnp.bfloat16), jnp.zeros((1, 64, 64), jnp.uint8)
    loss, count = pixels.cross_entropy(logits, label), pixels.count(label)
    assert loss.dtype == count.dtype == jnp.float32
    assert count == 64 * 64  # bfloat16 counts to 256
    assert loss.sum() == pytest.approx(64 * 64 * np.log(K), rel=1e-5)


PIXEL_LOSSES = {
    "smoothed": (
        functools.partial(pixels.cross_entropy, smoothing=0.1),
        functools.partial(made.cross_entropy, smoothing=0.1),
    ),
    "focal": (
        functools.partial(focal.focal, gamma=2.0),
        functools.partial(made.focal, gamma=2.0),
    ),
    "focal of 0.5": (
        functools.partial(focal.focal, gamma=0.5),
        functools.partial(made.focal, gamma=0.5),
    ),
}


@pytest.mark.parametrize("name", PIXEL_LOSSES)
@pytest.mark.parametrize("weights", [None, made.WEIGHTS])
def test_losses_and_their_gradients_are_those_of_their_formulas(name, weights):
    ours, formula = PIXEL_LOSSES[name]
    logits = np.random.default_rng(1).normal(0, 2, (2, 3, 4, K)).astype(np.float32)
    label = made.random_label((3, 4))
    given = None if weights is None else jnp.array(weights)

    def run(logits):
        return ours(logits, jnp.asarray(label), given).sum()

    total, gradient = jax.value_and_grad(run)(jnp.asarray(logits))
    assert total == pytest.approx(formula(logits, label, weights), rel=1e-5)
    expected = made.slope(lambda logits: formula(logits, label, weights), logits)
    np.testing.assert_allclose(gradient, expected, atol=2e-6)
    assert not np.asarray(gradient)[label == VOID].any()
