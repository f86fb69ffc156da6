import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.classical import regions
from segjax.errors import InputError

SHAPES = [(1, 1), (1, 7), (5, 1), (17, 23)]


def random_map(shape, count=3, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, shape).astype(np.int32)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = len(np.unique(np.stack([a.ravel(), b.ravel()]), axis=1).T)
    return pairs == len(np.unique(a)) == len(np.unique(b))


def first_pixels(labels: np.ndarray) -> list[int]:
    return [int(np.argmax(labels.ravel() == k)) for k in range(labels.max() + 1)]


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_components_are_those_of_scikit_image_in_raster_order(shape, connectivity):
    measure = pytest.importorskip("skimage.measure")
    labels = random_map(shape)
    found = np.asarray(regions.components(labels, connectivity=connectivity))
    expected = measure.label(labels, background=-1, connectivity=1 if connectivity == 4 else 2)
    assert same_partition(found, expected)
    firsts = first_pixels(found)
    assert firsts == sorted(firsts)


def test_a_long_snake_is_one_component():
    snake = np.zeros((15, 16), np.int32)
    snake[::2] = 1
    snake[1::4, -1] = snake[3::4, 0] = 1
    found = np.asarray(regions.components(snake))
    assert len(np.unique(found[snake == 1])) == 1
    assert found.max() == 7  # the snake and seven gaps


def test_components_of_a_batch_are_those_of_single_images():
    batch = np.stack([random_map((9, 14), seed=i) for i in range(3)])
    together = jax.jit(jax.vmap(regions.components))(batch)
    for labels, found in zip(batch, together, strict=True):
        np.testing.assert_array_equal(found, regions.components(labels))


@pytest.mark.parametrize("shape", SHAPES)
def test_relabel_keeps_the_partition_and_numbers_in_raster_order(shape):
    labels = random_map(shape, count=min(6, shape[0] * shape[1]), seed=1)
    found = np.asarray(regions.relabel(labels))
    assert same_partition(found, labels)
    firsts = first_pixels(found)
    assert firsts == sorted(firsts)


def test_boundaries_are_those_of_scikit_image():
    segmentation = pytest.importorskip("skimage.segmentation")
    labels = random_map((12, 15))
    thick = segmentation.find_boundaries(labels, connectivity=1, mode="thick")
    np.testing.assert_array_equal(regions.boundaries(labels), thick)
    halves = np.tile(np.arange(6) // 3, (4, 1))
    assert np.asarray(regions.boundaries(halves)).sum() == 8
    thin = np.asarray(regions.boundaries(halves, thin=True))
    assert thin.sum() == 4
    assert thin[:, 2].all()


@pytest.mark.parametrize("size", [(1, 1), (300, 700), (2048, 2048)])
def test_means_of_large_regions_are_exact(size):
    """One sum of four million pixels gave a mean that was four grey levels too small."""
    image = np.random.default_rng(0).integers(190, 211, (*size, 1), np.uint8)
    labels = np.zeros(size, np.int32)
    labels[0] = 2
    found = regions.means(image, labels, regions=3)[:, 0]
    expected = [image[1:].mean() if size[0] > 1 else 0, 0, image[0].mean()]
    np.testing.assert_allclose(found, expected, rtol=2e-7)


def test_means_and_the_image_of_mean_colours():
    labels = random_map((8, 9), count=4)
    image = np.random.default_rng(2).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    found = np.asarray(regions.means(image, labels, regions=6))
    for k in range(4):
        np.testing.assert_allclose(found[k], image[labels == k].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(found[4:], 0)
    picture = np.asarray(regions.mean_image(image, labels, regions=6))
    np.testing.assert_array_equal(picture, np.round(found)[labels])


@pytest.mark.parametrize("connectivity", [4, 8])
def test_adjacency_equals_the_counts_of_a_loop(connectivity):
    labels = random_map((7, 6), count=4)
    values = np.random.default_rng(3).random((7, 6)).astype(np.float32)
    counts, sums = np.zeros((5, 5), int), np.zeros((5, 5))
    steps = [(0, 1), (1, 0)] + ([(1, 1), (1, -1)] if connectivity == 8 else [])
    for y in range(7):
        for x in range(6):
            for down, right in steps:
                if y + down < 7 and 0 <= x + right < 6:
                    a, b = labels[y, x], labels[y + down, x + right]
                    if a != b:
                        mean = (values[y, x] + values[y + down, x + right]) / 2
                        counts[[a, b], [b, a]] += 1
                        sums[[a, b], [b, a]] += mean
    found = regions.adjacency(labels, values, regions=5, connectivity=connectivity)
    np.testing.assert_array_equal(found[0], counts)
    np.testing.assert_allclose(found[1], sums, rtol=1e-5)


def greedy(features: np.ndarray, labels: np.ndarray, keep: int) -> np.ndarray:
    """Merges one pair after another and recomputes everything each time."""
    labels = labels.copy()
    while len(np.unique(labels)) > keep:
        touching = np.argwhere(np.asarray(regions.adjacency(labels, regions=16)[0]) > 0)

        def loss(pair):
            a, b = (features[labels == k] for k in pair)
            square = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
            return len(a) * len(b) / (len(a) + len(b)) * square

        a, b = min(touching, key=loss)
        labels[labels == max(a, b)] = min(a, b)
    return labels


@pytest.mark.parametrize("keep", [1, 3, 6])
def test_merging_always_takes_the_pair_with_the_smallest_loss(keep):
    rng = np.random.default_rng(4)
    labels = np.kron(np.arange(12).reshape(3, 4), np.ones((3, 2), int)).astype(np.int32)
    features = (rng.random((12, 3)) * 100)[labels].astype(np.float32)
    found = np.asarray(regions.merge(features, labels, regions=16, keep=keep))
    assert found.max() == keep - 1
    assert same_partition(found, greedy(features, labels, keep))


def test_merging_keeps_a_map_with_no_more_regions_than_wanted():
    labels = np.tile(np.arange(6, dtype=np.int32) // 3, (4, 1))
    features = labels[..., None].astype(np.float32)
    np.testing.assert_array_equal(regions.merge(features, labels, regions=8, keep=5), labels)
    with pytest.raises(InputError, match="keep is 0"):
        regions.merge(features, labels, regions=8, keep=0)


def test_a_vote_gives_each_region_its_most_frequent_class():
    labels = np.array([[0, 0, 0, 1, 1, 2]], np.int32)
    values = np.array([[3, 1, 3, 2, 1, 255]], np.uint8)
    found = regions.vote(labels, values, regions=4, classes=5)
    np.testing.assert_array_equal(found, [[3, 3, 3, 1, 1, 5]])


def test_an_unknown_connectivity_is_refused():
    with pytest.raises(InputError, match="connectivity is 6; 4 and 8"):
        regions.components(jnp.zeros((3, 3), jnp.int32), connectivity=6)
