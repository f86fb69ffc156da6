import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data.spec import VOID
from segjax.losses import overlap
from segjax.losses.place import Place
from segjax.models.features import Scores
from segjax.models.resize import Resize
from tests.losses import made
from tests.losses.made import K

LOSSES = {
    "dice": (overlap.dice, made.dice),
    "lovasz_softmax": (overlap.lovasz_softmax, made.lovasz_softmax),
}


def place_of(logits, label: np.ndarray) -> Place:
    scores = Scores(jnp.asarray(logits, jnp.float32), Resize("half_pixel", 1))
    return Place(scores, jnp.asarray(label), at_scores=False, blocks=2)


def labels() -> np.ndarray:
    """All classes; one class and VOID; nothing but VOID."""
    label = made.random_label((3, 4), batch=3)
    label[1] = np.where(label[1] == VOID, VOID, 1)
    label[2] = VOID
    return label


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weights", [None, made.WEIGHTS])
@pytest.mark.parametrize("classes", overlap.CLASSES)
def test_losses_and_their_gradients_are_those_of_their_definitions(name, weights, classes):
    ours, definition = LOSSES[name]
    logits = np.random.default_rng(2).normal(0, 1, (3, 3, 4, K)).astype(np.float32)
    label = labels()
    given = None if weights is None else jnp.array(weights)

    def run(logits):
        return ours(place_of(logits, label), given, classes=classes).sum()

    total, gradient = jax.jit(jax.value_and_grad(run))(jnp.asarray(logits))
    again = functools.partial(definition, label=label, weights=weights, classes=classes)
    assert total == pytest.approx(again(logits), rel=1e-5)
    np.testing.assert_allclose(gradient, made.slope(again, logits), atol=1e-6)
    assert not np.asarray(gradient)[label == VOID].any()


def test_dice_by_hand():
    logits = np.log(np.array([[[[0.5, 0.5], [0.25, 0.75]]]]))
    found = overlap.dice(place_of(logits, np.array([[[0, 1]]], np.uint8)), None, classes="all")
    of_0, of_1 = 1 - (2 * 0.5 + 1) / (0.75 + 1 + 1), 1 - (2 * 0.75 + 1) / (1.25 + 1 + 1)
    np.testing.assert_allclose(found, [(of_0 + of_1) / 2], rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_certain_truth_costs_nothing_and_a_certain_error_everything(name):
    ours, _ = LOSSES[name]
    label = made.random_label((40, 50), batch=1)
    right = 100.0 * np.eye(K)[np.where(label == VOID, 0, label)]
    wrong = 100.0 * np.eye(K)[(np.where(label == VOID, 0, label) + 1) % K]
    of_right, of_wrong = (ours(place_of(x, label), None, classes="all")[0] for x in (right, wrong))
    assert of_right == pytest.approx(0, abs=1e-6)
    assert of_wrong == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("truth", [0b0000, 0b0001, 0b0110, 0b1111])
def test_of_certain_labels_the_lovasz_loss_is_one_minus_iou(truth):
    """At the corners of the cube an extension is the set function itself: every one of them."""
    truth = np.array([truth >> i & 1 for i in range(4)])
    for bits in range(16):
        said = np.array([bits >> i & 1 for i in range(4)])
        logits = 100.0 * np.eye(2)[said][None, None]
        place = place_of(logits, truth[None, None].astype(np.uint8))
        loss = overlap.lovasz_softmax(place, None, classes="all")[0]
        unions = [((truth == c) | (said == c)).sum() for c in (0, 1)]
        ious = [
            ((truth == c) & (said == c)).sum() / u if u else 1
            for c, u in zip((0, 1), unions, strict=True)
        ]
        assert loss == pytest.approx(1 - np.mean(ious), abs=1e-6)


def test_the_lovasz_loss_of_a_large_image_is_exact_and_pixels_may_come_in_any_order():
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 2, (1, 300, 400, K)).astype(np.float32)
    label = made.random_label((300, 400), batch=1)
    loss = float(overlap.lovasz_softmax(place_of(logits, label), None, classes="present")[0])
    order = rng.permutation(300 * 400)
    mixed = place_of(
        logits.reshape(1, -1, K)[:, order].reshape(logits.shape),
        label.reshape(1, -1)[:, order].reshape(label.shape),
    )
    again = overlap.lovasz_softmax(mixed, None, classes="present")[0]
    assert again == pytest.approx(loss, rel=1e-5)
    p, valid = made.softmax(logits)[0], label[0] != VOID
    expected = []
    for c in range(K):  # the same by the sorted IoUs of all prefixes, in float64
        truth = label[0][valid] == c
        error = np.abs(truth - p[valid][:, c])
        falling = np.argsort(-error)
        hits, misses = np.cumsum(truth[falling]), np.cumsum(~truth[falling])
        lost = 1 - (truth.sum() - hits) / (truth.sum() + misses)
        expected.append((error[falling] * np.diff(lost, prepend=0)).sum())
    assert loss == pytest.approx(np.mean(expected), rel=1e-5)
