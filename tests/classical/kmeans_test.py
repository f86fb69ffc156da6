"""K-means against scikit-learn and against its defining properties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.classical import descriptors, kmeans, lloyd
from segjax.errors import InputError


def photograph(size=(61, 83)) -> np.ndarray:
    image = pytest.importorskip("skimage.data").coffee()[::4, ::4]
    return np.ascontiguousarray(image[: size[0], : size[1]])


def lab_points(size=(61, 83)) -> np.ndarray:
    planes = np.asarray(descriptors.describe_pixels(photograph(size), "lab"))
    return np.ascontiguousarray(planes.reshape(3, -1).T)


def blobs(centres: np.ndarray, each: int, spread: float = 0.1) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, spread, (len(centres), each, centres.shape[1]))
    return (centres[:, None] + noise).reshape(-1, centres.shape[1]).astype(np.float32)


def cost(points: np.ndarray, centres: np.ndarray) -> float:
    points, centres = points.astype(np.float64), np.asarray(centres, np.float64)
    return ((points[:, None] - centres) ** 2).sum(axis=2).min(axis=1).sum()


@pytest.mark.parametrize(("clusters", "count"), [(8, 3), (3, 7), (70, 3)])  # 70: by matrix products
@pytest.mark.parametrize("offset", [0.0, 2000.0])
def test_the_result_from_a_given_start_is_that_of_scikit_learn(clusters, count, offset):
    cluster = pytest.importorskip("sklearn.cluster")
    rng = np.random.default_rng(1)
    number = max(20, clusters)  # fewer blobs in many clusters would give near ties
    points = blobs(rng.uniform(-40, 40, (number, count)), 250, spread=8.0) + np.float32(offset)
    start = points[rng.choice(len(points), clusters, replace=False)]
    reference = cluster.KMeans(clusters, init=start, n_init=1, tol=1e-4, max_iter=300)
    expected = reference.fit(points.astype(np.float64))
    got = kmeans.fit(points, clusters=clusters, start=start)
    assert np.mean(got.assignment == expected.labels_) > 0.999
    np.testing.assert_allclose(got.inertia, expected.inertia_, rtol=2e-4)
    np.testing.assert_allclose(got.centres, expected.cluster_centers_, atol=0.05)
    assert abs(int(got.iterations) - expected.n_iter_) <= 2


@pytest.mark.parametrize("clusters", [5, 60])
def test_the_result_is_consistent_with_itself(clusters):
    points = lab_points()
    got = kmeans.fit(points, clusters=clusters)
    squares = ((points[:, None] - np.asarray(got.centres)) ** 2).sum(axis=2)
    distances = squares[np.arange(len(points)), got.assignment]
    np.testing.assert_allclose(distances, squares.min(axis=1), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(got.inertia, distances.sum(), rtol=1e-4)
    fixed = kmeans.fit(points, clusters=clusters, tol=0.0)
    means = [points[fixed.assignment == number].mean(axis=0) for number in range(clusters)]
    np.testing.assert_allclose(fixed.centres, means, atol=1e-3)


def test_iterations_end_by_tolerance_or_by_their_number():
    points = lab_points()
    assert int(kmeans.fit(points, clusters=6, max_iterations=3).iterations) == 3
    loose, tight = (kmeans.fit(points, clusters=6, tol=tol) for tol in (1e-2, 0.0))
    assert int(loose.iterations) < int(tight.iterations) < 300
    assert float(tight.inertia) < float(loose.inertia)


def test_a_point_is_drawn_in_proportion_to_its_weight():
    weights = np.zeros((2, 16, 64), np.float32)
    places = [(0, 0, 5), (0, 15, 5), (0, 3, 63), (1, 0, 0), (1, 8, 32)]
    shares = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    for place, share in zip(places, shares, strict=True):
        weights[place] = 7 * share
    drawn = np.asarray(lloyd._draw(jax.random.key(3), jnp.asarray(weights), 20000))
    flat = [np.ravel_multi_index(place, weights.shape) for place in places]
    frequencies = np.array([np.mean(drawn == place) for place in flat])
    np.testing.assert_allclose(frequencies, shares, atol=0.015)
    assert frequencies.sum() == pytest.approx(1)


def test_kmeans_plus_plus_puts_a_centre_into_every_blob_and_random_does_not():
    corners = np.array([[x, y] for x in (0, 50, 100) for y in (0, 50, 100)], float)
    points = blobs(corners, 30)
    blocks = lloyd.to_blocks(jnp.asarray(points.T), 9)

    def hits(key, init):
        centres = lloyd.start(key, blocks, 9, init) + blocks.middle
        return jnp.sum(jnp.any(jnp.linalg.norm(centres[:, None] - corners, axis=2) < 5, axis=0))

    keys = jax.random.split(jax.random.key(0), 20)
    spread, random = (
        jax.jit(jax.vmap(functools.partial(hits, init=init)))(keys) for init in kmeans.INITS
    )
    np.testing.assert_array_equal(spread, np.full(20, 9))
    assert random.mean() < 8


def test_random_starts_are_different_points_with_equal_chances():
    blocks = lloyd.to_blocks(jnp.arange(6.0)[None], 3)
    keys = jax.random.split(jax.random.key(1), 3000)
    starts = jax.vmap(lambda key: lloyd.start(key, blocks, 3, "random"))(keys)
    numbers = np.round(np.asarray(starts)[..., 0] + float(blocks.middle[0])).astype(int)
    assert all(len(set(row)) == 3 for row in numbers.tolist())
    np.testing.assert_allclose(np.bincount(numbers.ravel()) / 9000, np.full(6, 1 / 6), atol=0.02)


def test_an_empty_cluster_moves_to_the_farthest_point():
    points = blobs(np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 30.0]]), 40)
    start = np.array([[0, 0], [10, 0], [-500, -500]], np.float32)  # the last gets nothing
    got = kmeans.fit(points, clusters=3, start=start)
    np.testing.assert_array_equal(np.bincount(got.assignment), [40, 40, 40])
    np.testing.assert_allclose(got.centres[2], [0, 30], atol=0.1)
    same = kmeans.fit(points, clusters=3, start=np.zeros((3, 2), np.float32))
    np.testing.assert_array_equal(np.bincount(same.assignment), [40, 40, 40])


def test_several_starts_keep_the_least_inertia():
    points = lab_points()
    keys = jax.random.split(jax.random.key(5), 4)
    blocks = lloyd.to_blocks(jnp.asarray(points.T), 7)
    inertias = [
        lloyd.iterate(
            blocks,
            lloyd.start(key, blocks, 7, "random"),
            tol=1e-4,
            max_iterations=300,
        ).inertia
        for key in keys
    ]
    assert max(inertias) > 1.001 * min(inertias)
    best = kmeans.fit(points, clusters=7, init="random", restarts=4, seed=5)
    np.testing.assert_allclose(best.inertia, min(inertias), rtol=1e-5)
    np.testing.assert_allclose(cost(points, best.centres), min(inertias), rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"clusters": 5, "features": "rgb"},
        {"clusters": 60, "features": "lab_xy"},  # by matrix products
        pytest.param({"clusters": 4, "features": "texture"}, marks=pytest.mark.slow),
        {"clusters": 4, "restarts": 2, "init": "random"},
    ],
)
def test_a_batch_gives_exactly_the_results_of_single_images(options):
    image = photograph()
    images = np.stack([image, image[::-1] // 2, 255 - image, np.full_like(image, 7)])
    method = functools.partial(kmeans.kmeans, **options)
    batch = jax.jit(jax.vmap(method))(images)
    np.testing.assert_array_equal(batch, [method(each) for each in images])


@pytest.mark.parametrize(
    "kind",
    [
        *descriptors.POINTWISE[:1],
        *(pytest.param(k, marks=pytest.mark.slow) for k in descriptors.POINTWISE[1:]),
    ],
)
def test_mini_batches_come_close_to_full_kmeans(kind):
    image = photograph()
    points = (
        np.asarray(descriptors.describe_pixels(image, kind)).reshape(descriptors.count(kind), -1).T
    )
    whole = kmeans.fit(points, clusters=6, restarts=3).inertia
    costs = []
    for seed in range(3):  # a single start may end in a poor optimum, even with all pixels
        found = kmeans.minibatch_kmeans(image, clusters=6, features=kind, batch=1024, seed=seed)
        labels = np.asarray(found).ravel()
        np.testing.assert_array_equal(np.unique(labels), np.arange(6))
        means = np.stack([points[labels == number].mean(axis=0) for number in range(6)])
        costs.append(cost(points, means))
    assert np.median(costs) < 1.08 * whole


def test_mini_batches_give_the_same_labels_in_any_number_of_strips(monkeypatch):
    image = photograph()
    method = functools.partial(kmeans.minibatch_kmeans, clusters=5, features="lab_xy", steps=5)
    whole = method(image)
    monkeypatch.setattr(lloyd, "SCORES", 5 * 83 * 7)  # seven rows at a time; the last has five
    jax.clear_caches()
    np.testing.assert_array_equal(method(image), whole)
    images = np.stack([image, image[::-1]])
    np.testing.assert_array_equal(jax.vmap(method)(images), [method(each) for each in images])


@pytest.mark.parametrize("method", [kmeans.kmeans, kmeans.minibatch_kmeans])
def test_labels_are_numbered_by_their_first_pixels_whatever_the_image(method):
    bands = np.repeat(np.array([200, 20, 90], np.uint8), 4)[:, None, None] * np.ones(
        (1, 7, 3), np.uint8
    )
    labels = np.asarray(method(bands, clusters=3))
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], 4)[:, None] * np.ones((1, 7), int))
    assert labels.dtype == np.int32
    # The image has fewer colours than clusters.
    np.testing.assert_array_equal(method(bands, clusters=9), labels)
    for size in ((1, 1), (4, 3)):
        constant = np.full((*size, 3), 60, np.uint8)
        most = size[0] * size[1]
        np.testing.assert_array_equal(method(constant, clusters=most), np.zeros(size))
        np.testing.assert_array_equal(method(constant, clusters=1), np.zeros(size))


def test_as_many_clusters_as_points_leave_no_inertia():
    points = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    got = kmeans.fit(points, clusters=9, init="random")
    np.testing.assert_array_equal(np.sort(got.assignment), np.arange(9))
    np.testing.assert_allclose(got.inertia, 0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 13}, "clusters is 13; 1 to 12"),
        ({"clusters": 0}, "clusters is 0; 1 to 12"),
        ({"init": "forgy"}, "init is 'forgy'; k-means"),
        ({"restarts": 0}, "restarts is 0"),
        ({"tol": -1.0}, "tol is -1.0"),
        ({"max_iterations": 0}, "max_iterations is 0"),
        ({"features": "hsv"}, "features is 'hsv'; rgb"),
    ],
)
def test_an_option_out_of_range_is_named(options, message):
    with pytest.raises(InputError, match=message):
        kmeans.kmeans(np.zeros((3, 4, 3), np.uint8), **{"clusters": 2, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "texture"}, "features is 'texture'; rgb, lab, lab_xy are"),
        ({"clusters": 5, "batch": 4}, "clusters is 5; 1 to 4"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_an_option_out_of_range_for_mini_batches_is_named(options, message):
    with pytest.raises(InputError, match=message):
        kmeans.minibatch_kmeans(np.zeros((3, 4, 3), np.uint8), **{"clusters": 2, **options})


def test_a_start_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"start is \(3, 2\)"):
        kmeans.fit(np.zeros((5, 2), np.float32), clusters=2, start=np.zeros((3, 2), np.float32))
