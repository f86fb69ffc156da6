import jax.numpy as jnp
import numpy as np
import pytest

from segjax.data.spec import VOID
from segjax.losses import ohem, pixels
from segjax.losses.place import Place
from segjax.models.features import Scores
from segjax.models.resize import Resize
from tests.losses import made


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
    label = ohem.hard_pixels(place, threshold=threshold, share=share)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(label) != VOID), kept)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_hardest_share_of_many_is_that_of_a_sort(share):
    scores, label = made.random_scores((40, 50)), made.random_label((40, 50), seed=3)
    place = Place(scores.replace(resize=Resize("half_pixel", 1)), jnp.asarray(label), False, 7)
    hard = ohem.hard_pixels(place, threshold=0.01, share=share)
    loss = pixels.cross_entropy(scores.values, hard)
    expected = made.ohem(np.asarray(scores.values), label, threshold=0.01, share=share)
    assert loss.sum() == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_void_has_no_hard_pixels():
    place = place_of([None, None])
    label = ohem.hard_pixels(place, threshold=0.7, share=1.0)
    assert (np.asarray(label) == VOID).all()
