import numpy as np
import pytest

from segjax.data.spec import VOID
from segjax.losses import lovasz_softmax
from tests.losses import made
from tests.losses.made import K


@pytest.mark.parametrize("truth", [0b0000, 0b0001, 0b0110, 0b1111])
def test_of_certain_labels_the_lovasz_loss_is_one_minus_iou(truth):
    """At the corners of the cube an extension is the set function itself: every one of them."""
    truth = np.array([truth >> i & 1 for i in range(4)])
    for bits in range(16):
        said = np.array([bits >> i & 1 for i in range(4)])
        logits = 100.0 * np.eye(2)[said][None, None]
        place = made.place_of(logits, truth[None, None].astype(np.uint8))
        loss = lovasz_softmax.lovasz_softmax(place, classes="all")[0]
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
    loss = float(lovasz_softmax.lovasz_softmax(made.place_of(logits, label), classes="present")[0])
    order = rng.permutation(300 * 400)
    mixed = made.place_of(
        logits.reshape(1, -1, K)[:, order].reshape(logits.shape),
        label.reshape(1, -1)[:, order].reshape(label.shape),
    )
    again = lovasz_softmax.lovasz_softmax(mixed, classes="present")[0]
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
