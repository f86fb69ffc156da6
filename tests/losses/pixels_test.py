import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data.spec import VOID
from segjax.losses import pixels
from segjax.losses.place import Place
from segjax.models.features import Scores
from segjax.models.resize import Resize
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
        functools.partial(pixels.focal, gamma=2.0),
        functools.partial(made.focal, gamma=2.0),
    ),
    "focal of 0.5": (
        functools.partial(pixels.focal, gamma=0.5),
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


def test_focal_of_gamma_0_is_cross_entropy_and_certainty_has_a_finite_slope():
    logits, label = made.random_scores().values, jnp.asarray(made.random_label((4, 5)))
    np.testing.assert_allclose(
        pixels.focal(logits, label, gamma=0.0), pixels.cross_entropy(logits, label), rtol=1e-6
    )
    certain, label = jnp.array([[[[200.0, 0, 0], [0, 200.0, 0]]]]), jnp.zeros((1, 1, 2), jnp.uint8)
    for gamma in (0.5, 2.0):
        gradient = jax.grad(lambda x, g=gamma: pixels.focal(x, label, gamma=g).sum())(certain)
        np.testing.assert_allclose(gradient[0, 0], [[0, 0, 0], [-1, 1, 0]], atol=1e-6)


def place_of(probabilities) -> Place:
    """One row of pixels whose truth, class 0, has these probabilities; None is VOID."""
    p = np.array([[0.5 if q is None else q for q in probabilities]])
    logits = np.log(np.stack([p, 1 - p], axis=-1))
    label = np.where([[q is None for q in probabilities]], VOID, 0).astype(np.uint8)
    scores = Scores(jnp.asarray(logits[None], jnp.float32), Resize("half_pixel", 1))
    return Place(scores, jnp.asarray(label[None]), at_scores=False, blocks=1)


@pytest.mark.parametrize(
    ("threshold", "share", "kept"),
    [
        (0.35, 0.0, [1, 4]),
        (0.0, 0.4, [1, 4]),
        (0.0, 0.41, [1, 3, 4, 5]),  # the third lowest are two
        (0.35, 0.8, [1, 3, 4, 5]),
        (0.95, 0.1, [0, 1, 3, 4, 5]),
        (0.0, 1.0, [0, 1, 3, 4, 5]),
        (0.0, 0.0, []),
    ],
)
def test_hard_are_those_below_the_threshold_and_the_hardest_share(threshold, share, kept):
    place = place_of([0.9, 0.3, None, 0.4, 0.2, 0.4])
    label = pixels.hard_pixels(place, threshold=threshold, share=share)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(label) != VOID), kept)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_hardest_share_of_many_is_that_of_a_sort(share):
    scores, label = made.random_scores((40, 50)), made.random_label((40, 50), seed=3)
    place = Place(scores.replace(resize=Resize("half_pixel", 1)), jnp.asarray(label), False, 7)
    hard = pixels.hard_pixels(place, threshold=0.01, share=share)
    loss = pixels.cross_entropy(scores.values, hard)
    expected = made.ohem(np.asarray(scores.values), label, threshold=0.01, share=share)
    assert loss.sum() == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_void_has_no_hard_pixels():
    place = place_of([None, None])
    label = pixels.hard_pixels(place, threshold=0.7, share=1.0)
    assert (np.asarray(label) == VOID).all()
