import math

import jax
import numpy as np
import pytest

from segjax.classical import connectivity
from segjax.metrics import partitions


def random_map(shape, count, seed=0) -> np.ndarray:
    """A map of blobs with stray pixels."""
    rng = np.random.default_rng(seed)
    blobs = np.kron(rng.integers(0, count, [-(-n // 5) for n in shape]), np.ones([5] * len(shape)))
    blobs = blobs[tuple(slice(n) for n in shape)].astype(np.int32)
    return np.where(rng.random(shape) < 0.2, rng.integers(0, count, shape), blobs).astype(np.int32)


def costs(shape, seed: int = 0) -> np.ndarray:
    """Costs that differ by more than the compared bits resolve."""
    rng = np.random.default_rng(seed)
    return (rng.permutation(math.prod(shape)) / math.prod(shape)).reshape(shape).astype(np.float32)


def seed_of(region: np.ndarray, cost: np.ndarray) -> int:
    """Place of the seed that the docstring of `connect` defines, computed from masks."""
    wide = np.pad(region, 2, constant_values=False)
    inner = wide.copy()
    for axis in range(region.ndim):
        for way in (-1, 1):
            inner &= np.roll(wide, way, axis)
    deep = inner.copy()
    for axis in range(region.ndim):
        for way in (-1, 1):
            deep &= np.roll(inner, way, axis)
    cut = (slice(2, -2),) * region.ndim
    most = next(mask[cut] for mask in (deep, inner, wide) if mask[cut].any())
    return int(np.argmin(np.where(most, cost, 2)))


def flood(labels: np.ndarray, place: int) -> set[int]:
    """Places that a walk through equal labels reaches."""
    reached, todo = {place}, [place]
    while todo:
        at = np.unravel_index(todo.pop(), labels.shape)
        for axis in range(labels.ndim):
            for way in (-1, 1):
                to = list(at)
                to[axis] += way
                if 0 <= to[axis] < labels.shape[axis] and labels[tuple(to)] == labels[at]:
                    number = int(np.ravel_multi_index(to, labels.shape))
                    if number not in reached:
                        reached.add(number)
                        todo.append(number)
    return reached


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (70, 1), (33, 17), (64, 9), (95, 31)])
def test_unpacking_recovers_packed_labels(shape):
    labels = random_map(shape, 37)
    planes = connectivity.pack(labels, 37)
    assert planes.shape == (6, -(-shape[0] // 32), shape[1])
    np.testing.assert_array_equal(connectivity.unpack(planes, shape[0]), labels)


@pytest.mark.parametrize("shape", [(33, 17), (70, 9), (8, 12), (9, 7, 8)])
def test_pixels_connected_to_the_seed_stay_and_every_region_is_one_piece(shape):
    labels, cost = random_map(shape, 6), costs(shape)
    joined, present = connectivity.connect(labels, cost, regions=8)
    np.testing.assert_array_equal(present, [True] * 6 + [False] * 2)
    joined = np.asarray(joined)
    for label in range(6):
        seed = seed_of(labels == label, cost)
        reached = flood(labels, seed)
        assert (joined.ravel()[list(reached)] == label).all()
        assert flood(joined, seed) == set(np.flatnonzero(joined == label).tolist())


def test_a_stray_pixel_is_never_a_seed_even_with_the_least_cost():
    labels = np.zeros((9, 12), np.int32)
    labels[:, 6:] = 1
    labels[1, 1] = 1
    cost = np.full((9, 12), 0.9, np.float32)
    cost[1, 1] = 0
    joined = np.asarray(connectivity.connect(labels, cost, regions=2)[0])
    np.testing.assert_array_equal(joined, np.tile(np.arange(12) // 6, (9, 1)))


def test_a_batch_gives_the_results_of_single_images():
    batch = np.stack([random_map((40, 13), 6, seed) for seed in range(3)])
    cost = np.stack([costs((40, 13), seed) for seed in range(3)])

    def connect(labels, cost):
        return connectivity.connect(labels, cost, regions=6)[0]

    together = np.asarray(jax.jit(jax.vmap(connect))(batch, cost))
    for labels, each, connected in zip(batch, cost, together, strict=True):
        np.testing.assert_array_equal(connected, connect(labels, each))
        assert partitions.count_pieces(connected) == 6
