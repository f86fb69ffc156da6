"""Spectral clustering of pixels against scipy on dense matrices, and on images with one answer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.classical import spectral
from segjax.errors import InputError

linalg = pytest.importorskip("scipy.linalg")


def noise(shape, channels=3, seed=0) -> np.ndarray:
    """A ramp with noise, so that weights differ: float64 [C, H, W]."""
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(np.arange(shape[0]), 2 * np.arange(shape[1]))
    return np.stack([ramp + 8 * rng.random(shape) for _ in range(channels)])


def dense(planes: np.ndarray, radius: float, sigma_color: float, sigma_position: float):
    """The dense weights W by the formula: float64 [N, N]."""
    height, width = planes.shape[1:]
    place = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    place = place.reshape(-1, 2)
    value = planes.reshape(len(planes), -1).T
    far = ((place[:, None] - place) ** 2).sum(-1)
    gap = ((value[:, None] - value) ** 2).sum(-1)
    return np.where(far <= radius**2, np.exp(-gap / sigma_color**2 - far / sigma_position**2), 0)


def halves(shape=(20, 30), left=(200, 30, 30), right=(30, 30, 200)) -> np.ndarray:
    image = np.zeros((*shape, 3), np.uint8)
    image[:, : shape[1] // 3] = left
    image[:, shape[1] // 3 :] = right
    return image


def segment(image, **options) -> np.ndarray:
    settings = {"segments": 2, "radius": 2.0, "sigma_position": 2.0, **options}
    return np.asarray(jax.jit(functools.partial(spectral.spectral, **settings))(image))


def same_partition(a, b) -> bool:
    pairs = len(np.unique(np.stack([np.ravel(a), np.ravel(b)]), axis=1).T)
    return pairs == len(np.unique(a)) == len(np.unique(b))


@pytest.mark.parametrize("shape", [(3, 4), (9, 11), (21, 26)])
@pytest.mark.parametrize("normalised", [True, False])
def test_eigenvalues_of_the_laplacians_are_scipys(shape, normalised):
    planes = noise(shape)
    weights = dense(planes, 2.5, 12.0, 2.0)
    degree = weights.sum(1)
    mass = np.diag(degree) if normalised else None
    expected, vectors = linalg.eigh(np.diag(degree) - weights, mass)

    @jax.jit
    def solve(planes):
        links = spectral.grid_links(tuple(planes), 2.5, 12.0, 2.0)
        return spectral.grid_vectors(
            links, shape, wanted=5, normalised=normalised, key=jax.random.key(0), rounds=40,
            tolerance=1e-5,
        )  # fmt: skip

    found, embedding = solve(jnp.float32(planes))
    np.testing.assert_allclose(found[:5], expected[:5], atol=2e-4)
    # The spaces are equal in the metric of M: u is the random walk's vector, not D^1/2 u.
    metric = degree[:, None] if normalised else 1
    inner = vectors[:, :5].T @ (metric * np.asarray(embedding).reshape(-1, found.size)[:, :5])
    np.testing.assert_allclose(np.linalg.svd(inner)[1], 1, atol=2e-2)


def test_the_symmetric_laplacian_has_the_random_walks_values_and_scaled_vectors():
    weights = dense(noise((6, 7)), 2.0, 12.0, 2.0)
    degree = weights.sum(1)
    root = np.sqrt(degree)
    values, vectors = linalg.eigh(np.eye(degree.size) - weights / np.outer(root, root))
    links = spectral.grid_links(tuple(jnp.float32(noise((6, 7)))), 2.0, 12.0, 2.0)
    found, embedding = spectral.grid_vectors(
        links, (6, 7), wanted=3, normalised=True, key=jax.random.key(0), rounds=40, tolerance=1e-5
    )
    np.testing.assert_allclose(found[:3], values[:3], atol=2e-4)
    scaled = root[:, None] * np.asarray(embedding).reshape(42, -1)[:, :3]
    np.testing.assert_allclose(np.abs(np.diag(vectors[:, :3].T @ scaled)), 1, atol=1e-2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 5)])
def test_links_and_degrees_are_those_of_the_dense_matrix(shape):
    planes = noise(shape)
    weights = dense(planes, 3.0, 20.0, 4.0)
    links = spectral.grid_links(tuple(jnp.float32(planes)), 3.0, 20.0, 4.0)
    degree = spectral.degrees(links, shape)
    np.testing.assert_allclose(np.ravel(degree), weights.sum(1) - 1, rtol=1e-4, atol=1e-6)
    assert len(links) <= 14


@pytest.mark.parametrize("laplacian", spectral.LAPLACIANS)
@pytest.mark.parametrize("assign", spectral.ASSIGNMENTS)
def test_an_image_of_two_colours_is_cut_between_them(laplacian, assign):
    image = halves()
    found = segment(image, laplacian=laplacian, assign=assign)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, (image[..., 2] > 100).astype(int))


def test_a_large_image_is_reduced_and_its_labels_are_enlarged():
    found = segment(halves((61, 90)), side=30)
    np.testing.assert_array_equal(found, np.tile(np.arange(90) >= 30, (61, 1)))


def test_discretisation_and_kmeans_agree_on_separate_clusters():
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 3
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rows = jnp.float32((np.eye(3)[truth] + 0.05 * rng.normal(size=(60, 3))) @ turn)
    for assign in spectral.ASSIGNMENTS:
        assert same_partition(spectral.cluster(rows, 3, assign, 0), truth)


def test_discretisation_gives_every_row_its_nearest_axis():
    rows = jnp.float32([[1, 0.1], [0.9, 0], [0.1, 1], [0, 0.7], [1, 0.9]])
    found = np.asarray(spectral.discretize(rows))
    assert same_partition(found, [0, 0, 1, 1, 0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (7, 1), (5, 9)])
@pytest.mark.parametrize("assign", spectral.ASSIGNMENTS)
def test_labels_of_constant_and_tiny_images_have_no_gaps(shape, assign):
    segments = min(3, shape[0] * shape[1])
    found = segment(np.full((*shape, 3), 77, np.uint8), segments=segments, assign=assign)
    assert found.shape == shape
    assert sorted(np.unique(found)) == list(range(found.max() + 1))
    assert found.max() < segments


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"segments": 0}, "segments is 0; 1 to the graph's 600 pixels"),
        ({"segments": 601}, "segments is 601"),
        ({"segments": 7, "side": 3}, "segments is 7; 1 to the graph's 6 pixels"),
        ({"radius": 0.5}, "radius is 0.5; at least 1"),
        ({"sigma_color": 0}, "sigma_color is 0; numbers above 0"),
        ({"sigma_position": -1}, "sigma_position is -1"),
        ({"laplacian": "normal"}, "laplacian: unknown 'normal'; known: symmetric"),
        ({"assign": "argmax"}, "assign: unknown 'argmax'; known: kmeans"),
        ({"side": 0}, "side is 0; at least 1"),
    ],
)
def test_options_out_of_range_are_named(options, text):
    with pytest.raises(InputError, match=text):
        segment(halves(), **options)
