import jax
import numpy as np
import pytest

from segjax.classical import connectivity
from segjax.metrics import regions


def random_map(shape, count, seed=0) -> np.ndarray:
    """Blobs with loose pixels about."""
    rng = np.random.default_rng(seed)
    blobs = np.kron(rng.integers(0, count, [-(-n // 5) for n in shape]), np.ones([5] * len(shape)))
    blobs = blobs[tuple(slice(n) for n in shape)].astype(np.int32)
    return np.where(rng.random(shape) < 0.2, rng.integers(0, count, shape), blobs).astype(np.int32)


def seeds_of(labels: np.ndarray, count: int, least: int = 1) -> np.ndarray:
    """Seeds near the centroids."""
    places = np.indices(labels.shape).reshape(labels.ndim, -1)
    members = np.maximum(np.bincount(labels.ravel(), minlength=count), 1)
    middles = [np.bincount(labels.ravel(), p, count) / members for p in places]
    return np.asarray(connectivity.seeds(labels, np.float32(middles), least=least))


def flood(labels: np.ndarray, place: int) -> set[int]:
    """Places that a walk through equal labels comes to, one after another."""
    found, todo = {place}, [place]
    while todo:
        at = np.unravel_index(todo.pop(), labels.shape)
        for axis in range(labels.ndim):
            for way in (-1, 1):
                to = list(at)
                to[axis] += way
                if 0 <= to[axis] < labels.shape[axis] and labels[tuple(to)] == labels[at]:
                    number = int(np.ravel_multi_index(to, labels.shape))
                    if number not in found:
                        found.add(number)
                        todo.append(number)
    return found


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (70, 1), (33, 17), (64, 9), (95, 31)])
def test_labels_come_back_from_their_bits(shape):
    labels = random_map(shape, 37)
    planes = connectivity.pack(labels, 37)
    assert planes.shape == (6, -(-shape[0] // 32), shape[1])
    np.testing.assert_array_equal(connectivity.unpack(planes, shape[0]), labels)


@pytest.mark.parametrize("shape", [(33, 17), (70, 9), (8, 12), (9, 7, 8)])
def test_what_a_seed_reaches_stays_and_every_region_is_one_piece(shape):
    labels = random_map(shape, 6)
    seeds = seeds_of(labels, 8)
    np.testing.assert_array_equal(seeds[6:], -1)
    joined = np.asarray(connectivity.connect(labels, seeds))
    assert set(np.unique(joined)) == set(range(6))
    for label, seed in enumerate(seeds[:6]):
        reached = flood(labels, int(seed))
        assert (joined.ravel()[list(reached)] == label).all()
        assert flood(joined, int(seed)) == set(np.flatnonzero(joined == label).tolist())


def test_a_seed_is_as_deep_inside_as_can_be_and_then_nearest_to_the_centroid():
    labels = random_map((21, 34), 5, seed=1)
    y, x = np.mgrid[:21, :34]
    for label, seed in enumerate(seeds_of(labels, 5)):
        own = np.pad(labels == label, 2, constant_values=False)
        inner = np.ones_like(own)
        for axis in (0, 1):
            for way in (-1, 1):
                inner &= np.roll(own, way, axis) & own
        deep = inner.copy()
        for axis in (0, 1):
            for way in (-1, 1):
                deep &= np.roll(inner, way, axis)
        own, inner, deep = (mask[2:-2, 2:-2] for mask in (own, inner, deep))
        most = deep if deep.any() else inner if inner.any() else own
        apart = (y - y[own].mean()) ** 2 + (x - x[own].mean()) ** 2
        assert most.ravel()[seed]
        # Near ties are no matter: 20 bits are left for the comparison here.
        assert apart.ravel()[seed] == pytest.approx(apart[most].min(), rel=1e-3, abs=1e-3)


def test_small_regions_are_given_away_but_never_all():
    labels = np.zeros((6, 8), np.int32)
    labels[2, 3:5] = 1
    seeds = seeds_of(labels, 2, least=3)
    assert int(seeds[1]) == -1
    assert not np.asarray(connectivity.connect(labels, seeds)).any()
    kept = seeds_of(labels, 2, least=1000)
    assert kept[0] >= 0


def test_a_batch_is_its_images():
    batch = np.stack([random_map((40, 13), 6, seed) for seed in range(3)])

    middles = np.random.default_rng(5).uniform(0, 13, (3, 2, 6)).astype(np.float32)

    def both(labels, middles):
        return connectivity.connect(labels, connectivity.seeds(labels, middles))

    together = np.asarray(jax.jit(jax.vmap(both))(batch, middles))
    for labels, middle, found in zip(batch, middles, together, strict=True):
        np.testing.assert_array_equal(found, both(labels, middle))
        assert regions.count_pieces(found) == 6
