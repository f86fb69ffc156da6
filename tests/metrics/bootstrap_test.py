import tracemalloc

import numpy as np
import pytest

from segjax.metrics import bootstrap, confusion

K = 4


def population(rng, images: int, skill: float = 0.7) -> np.ndarray:
    """Marginals int64 [n, 3, K] of images that differ in difficulty and in their classes."""
    counts = np.zeros((images, K, K), np.int64)
    for matrix in counts:
        shares = rng.dirichlet(np.full(K, 0.7))
        right = np.clip(skill + rng.normal(0, 0.15), 0.05, 0.99)
        noise = np.full((K, K), (1 - right) / K) + right * np.eye(K)
        matrix[:] = rng.multinomial(2000, (shares[:, None] * noise).ravel()).reshape(K, K)
    return confusion.marginals(counts)


def test_the_value_is_the_score_of_all_images():
    counts = np.random.default_rng(0).integers(0, 50, (7, K, K))
    interval = bootstrap.miou(confusion.marginals(counts))
    assert interval.value == pytest.approx(confusion.report(counts.sum(0)).miou)
    assert interval.low < interval.value < interval.high
    assert interval == bootstrap.miou(confusion.marginals(counts))  # the same draws again


@pytest.mark.parametrize("images", [40, 150])
def test_intervals_contain_the_true_score_at_their_level(images):
    rng = np.random.default_rng(1)
    everything = population(rng, 100_000)
    truth = float(confusion.miou(everything.sum(0)))
    trials, hits = 400, 0
    for trial in range(trials):
        chosen = everything[rng.integers(0, len(everything), images)]
        interval = bootstrap.miou(chosen, draws=400, seed=trial)
        hits += interval.low <= truth <= interval.high
    # 0.95 less the known bias of percentile intervals of few images and 3 standard errors
    assert 0.95 - 0.02 - 3 * 0.011 <= hits / trials <= 0.99


def test_a_difference_draws_the_same_images_of_both():
    rng = np.random.default_rng(2)
    a = population(rng, 60)
    b = a.copy()
    b[:, 0] = (b[:, 0] * 0.98).astype(np.int64)  # a little worse on every image
    difference, by_class = bootstrap.differences(a, b)
    assert difference.low > 0  # certain, although the single intervals overlap:
    assert bootstrap.miou(b).high > bootstrap.miou(a).low
    same, _ = bootstrap.differences(a, a)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert len(by_class) == K
    assert all(i.low > 0 for i in by_class)
    assert by_class[1].value == pytest.approx(
        confusion.iou(a.sum(0))[1] - confusion.iou(b.sum(0))[1]
    )


def test_an_absent_class_is_nan():
    marginals = np.zeros((5, 3, 2), np.int64)
    marginals[:, :, 0] = 10
    assert bootstrap.miou(marginals).value == 1
    assert np.isnan(bootstrap.differences(marginals, marginals)[1][1].value)


def test_sets_drawn_a_few_at_a_time_are_those_drawn_at_once():
    """The draws of all sets as one matrix; sums of whole numbers are exact."""
    marginals = population(np.random.default_rng(3), 30)
    times = np.random.default_rng(5).multinomial(30, np.full(30, 1 / 30), size=173)
    sums = np.einsum("dn,nkc->dkc", times, marginals)
    tail = 100 * (1 - bootstrap.LEVEL) / 2
    low, high = np.percentile(confusion.miou(sums), (tail, 100 - tail))
    found = bootstrap.miou(marginals, draws=173, seed=5)
    assert (found.low, found.high) == (low, high)


def test_the_memory_does_not_grow_with_images_times_draws():
    """20,210 images of 150 classes: the times each is drawn into 2000 sets are 323 MB."""
    marginals = np.ones((20_210, 3, 2), np.int64)
    tracemalloc.start()
    bootstrap.differences(marginals, marginals, draws=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1000 * 20_210 * 8 / 2
