import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.classical import gmm, grabcut
from segjax.errors import InputError

_grabcut = jax.jit(grabcut.grabcut, static_argnames=("components", "iterations", "gamma"))


def _disc(seed, size=(40, 52), centre=(20, 24), radius=11):
    """An image of a noisy disc on a noisy two-coloured ground, and the mask of the disc."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    truth = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    ground = np.where((columns < size[1] // 2)[..., None], [40, 90, 150], [60, 160, 90])
    image = np.where(truth[..., None], [210, 80, 50], ground) + rng.integers(-15, 16, (*size, 3))
    return image.clip(0, 255).astype(np.uint8), truth


def test_a_disc_is_cut_out_of_its_box():
    image, truth = _disc(0)
    labels = np.asarray(_grabcut(image, np.array([6, 9, 34, 40])))
    assert labels.dtype == np.int32
    assert (labels != truth).sum() <= 2


@pytest.mark.parametrize("right", [36, 33])  # with 33 the disc extends beyond the box
def test_nothing_outside_of_the_box_is_foreground(right):
    image, truth = _disc(1)
    labels = np.asarray(_grabcut(image, np.array([6, 9, 34, right])))
    within = np.zeros_like(truth)
    within[6:34, 9:right] = True
    assert not labels[~within].any()
    assert labels.any() == (right == 36)  # else the disc's colour is known as background


@pytest.mark.parametrize(
    "box", [(0, 0, 40, 52), (-5, -5, 99, 99), (20, 20, 21, 21), (9, 9, 9, 30), (30, 9, 20, 30)]
)
def test_any_box_gives_labels_within_it(box):
    image, _ = _disc(0)
    labels = np.asarray(_grabcut(image, np.array(box)))
    within = np.zeros(labels.shape, bool)
    within[max(box[0], 0) : max(box[2], 0), max(box[1], 0) : max(box[3], 0)] = True
    assert set(np.unique(labels)) <= {0, 1}
    assert not labels[~within].any()


@pytest.mark.parametrize("shape", [(1, 1), (7, 5)])
def test_a_constant_image_of_any_size_is_cut(shape):
    image = np.full((*shape, 3), 77, np.uint8)
    labels = np.asarray(_grabcut(image, np.array([0, 0, shape[0], (shape[1] + 1) // 2])))
    assert labels.shape == shape
    colors = gmm.planes(jnp.asarray(image))
    groups = jnp.zeros(shape, jnp.int32)

    @jax.jit
    def density():
        owners = gmm.split(colors, groups, components=5)
        return gmm.score(gmm.learn(colors, groups, owners, components=5), colors)[0]

    assert np.isfinite(density()).all()


def test_seeds_keep_their_label():
    image, truth = _disc(0)
    seeds = np.zeros(truth.shape, np.int32)
    seeds[8, 12], seeds[20, 24] = 2, 1
    labels = np.asarray(_grabcut(image, np.array([6, 9, 34, 40]), seeds=seeds))
    assert (labels[8, 12], labels[20, 24]) == (1, 0)
    assert (labels != truth).sum() <= 10


def test_the_mixtures_density_is_that_of_scikit_learn():
    mixture = pytest.importorskip("sklearn.mixture")
    image, truth = _disc(0)
    colors, groups = gmm.planes(jnp.asarray(image)), jnp.asarray(truth.astype(np.int32))
    owners = gmm.split(colors, groups, components=3)
    mixtures = gmm.learn(colors, groups, owners, components=3)
    density, best = gmm.score(mixtures, colors)
    other = mixture.GaussianMixture(3, covariance_type="full")
    whitening = np.asarray(mixtures.whitening[0], np.float64)
    other.means_ = np.asarray(mixtures.means[0], np.float64)
    other.precisions_cholesky_ = whitening.transpose(0, 2, 1)
    chosen = np.asarray(owners)[~truth]
    other.weights_ = np.bincount(chosen, minlength=3) / chosen.size
    pixels = np.asarray(colors).reshape(3, -1).T
    np.testing.assert_allclose(density[0].ravel(), other.score_samples(pixels), atol=1e-3)
    np.testing.assert_array_equal(best[0].ravel(), other.predict(pixels))
    for k in range(3):
        members = image[~truth][chosen == k].astype(np.float64) - 128
        covariance = np.cov(members.T, bias=True) + np.eye(3) / 12
        inverse = whitening[k].T @ whitening[k]
        np.testing.assert_allclose(inverse @ covariance, np.eye(3), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"components": 0}, "components: got 0"),
        ({"iterations": 0}, "iterations: got 0"),
        ({"gamma": 0.0}, "gamma: got 0.0"),
    ],
)
def test_options_out_of_range_are_named(options, text):
    with pytest.raises(InputError, match=text):
        grabcut.grabcut(jnp.zeros((3, 3, 3), jnp.uint8), jnp.zeros(4, int), **options)
