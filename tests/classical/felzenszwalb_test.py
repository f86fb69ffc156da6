import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from segjax.classical import regions
from segjax.classical.felzenszwalb import _differences, felzenszwalb
from segjax.errors import InputError

FORMS = ["exact", "parallel"]
SHAPES = [(1, 1), (1, 9), (8, 1), (13, 17)]
# One program serves several tests.
OPTIONS = {"scale": 90.0, "sigma": 0.7, "min_size": 6}


@functools.cache
def compiled(**options):
    return jax.jit(functools.partial(felzenszwalb, **options))


def segment(image, **options) -> np.ndarray:
    return np.asarray(compiled(**options)(image))


def noise(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


@functools.cache
def photograph(name: str) -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(getattr(data, name)()[:280:2, :400:2])


def patches() -> np.ndarray:
    """An image of twelve 8 x 8 squares with very different colours and a little noise."""
    rng = np.random.default_rng(1)
    colors = rng.permutation(np.linspace(0, 240, 12)).reshape(3, 4)
    colors = np.stack([colors, colors[::-1], colors[:, ::-1]], axis=-1)
    image = np.kron(colors, np.ones((8, 8, 1))) + rng.integers(0, 4, (24, 32, 3))
    return image.astype(np.uint8)


def squares() -> np.ndarray:
    return np.kron(np.arange(12).reshape(3, 4), np.ones((8, 8), int))


def information(a: np.ndarray, b: np.ndarray) -> float:
    """Variation of information in bits."""

    def entropy(labels):
        share = np.unique(labels, axis=-1, return_counts=True)[1] / a.size
        return -(share * np.log2(share)).sum()

    both = np.stack([a.ravel(), b.ravel()])
    return 2 * entropy(both) - entropy(a.ravel()) - entropy(b.ravel())


@pytest.mark.parametrize("name", ["coffee", "chelsea", "astronaut", "rocket"])
def test_the_exact_form_segments_photographs_like_scikit_image(name):
    segmentation = pytest.importorskip("skimage.segmentation")
    image, options = photograph(name), {"scale": 200.0, "sigma": 0.8, "min_size": 30}
    found = segment(image, form="exact", **options)
    expected = segmentation.felzenszwalb(image, **options)
    assert expected.max() > 5
    assert information(found, expected) < 1e-3


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_labels_are_those_of_scikit_image_if_no_weights_are_equal(sigma):
    segmentation = pytest.importorskip("skimage.segmentation")
    for seed in range(4):
        image, options = noise((19, 16), seed), {"scale": 400.0, "sigma": sigma, "min_size": 4}
        found = segment(image, form="exact", **options)
        expected = segmentation.felzenszwalb(image, **options)
        # Integers without smoothing have a few equal weights.
        allowed = 0.05 if sigma == 0 else 0
        assert np.mean(found != expected) <= allowed


@pytest.mark.parametrize("form", FORMS)
def test_the_predicate_by_hand_on_rows_of_five_pixels(form):
    # Scale 30: one pixel's threshold is 30, a pair's its weight + 15, four's the largest + 7.5.
    rows, expected = zip(
        ([0, 30, 60, 90, 120], [0, 1, 2, 3, 4]),  # 30 is not below 30
        ([0, 29, 59, 89, 119], [0, 0, 1, 2, 3]),
        ([0, 3, 22, 26, 90], [0, 0, 1, 1, 2]),  # 19 between pairs of thresholds 18 and 19
        ([0, 4, 22, 26, 90], [0, 0, 0, 0, 1]),  # 18, and 19 and 19
        ([0, 4, 22, 26, 52], [0, 0, 0, 0, 1]),  # 26 and the four's 25.5
        ([0, 4, 22, 26, 51], [0, 0, 0, 0, 0]),  # 25
        strict=True,
    )
    images = np.zeros((6, 1, 5, 3), np.uint8)
    images[:, 0, :, 0] = rows
    options = {"scale": 30.0, "sigma": 0.0, "min_size": 0, "form": form, "levels": 4}
    found = jax.jit(jax.vmap(functools.partial(felzenszwalb, **options)))(images)
    np.testing.assert_array_equal(found[:, 0], expected)


@pytest.mark.parametrize("form", FORMS)
def test_neighbours_may_join_although_lighter_edges_lead_around(form):
    # Two pixels are 10 off a large component, which refuses them, and 14.1 apart: the tree of least
    # weight would not hold the edge between them.
    image = np.zeros((4, 6, 3), np.uint8)
    image[1, 5, 0] = image[2, 5, 1] = 10
    labels = segment(image, scale=15.0, sigma=0.0, min_size=0, form=form)
    expected = np.zeros((4, 6), int)
    expected[1:3, 5] = 1
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("min_size", [9])
def test_regions_are_connected_large_enough_and_numbered_in_raster_order(form, min_size):
    labels = segment(noise((23, 31)), scale=100.0, min_size=min_size, form=form)
    counts = np.bincount(labels.ravel())
    assert counts.min() >= min_size
    assert len(counts) > 2
    pieces = regions.components(jnp.asarray(labels), connectivity=8)
    np.testing.assert_array_equal(labels, pieces)


@pytest.mark.parametrize("form", FORMS)
def test_every_square_of_one_colour_is_a_region(form):
    labels = segment(patches(), scale=100.0, sigma=0.0, min_size=5, form=form)
    np.testing.assert_array_equal(labels, squares())


def test_the_parallel_form_approaches_the_exact_one_with_more_levels():
    image, options = photograph("coffee"), {"scale": 200.0, "min_size": 30}
    exact = segment(image, form="exact", **options)
    few, many = (segment(image, form="parallel", levels=n, **options) for n in (4, 1024))
    assert information(many, exact) < 0.1
    assert information(many, exact) < information(few, exact)


@pytest.mark.parametrize("form", FORMS)
def test_a_larger_scale_leaves_fewer_regions(form):
    options = {"sigma": 0.7, "min_size": 6, "form": form}
    counts = [segment(noise((24, 32)), scale=scale, **options).max() for scale in (90.0, 400.0)]
    assert counts[0] > counts[1] > 0


@pytest.mark.parametrize("form", [*FORMS, "auto"])
def test_a_batch_gives_the_labels_of_its_images(form):
    batch = np.stack([patches(), noise((24, 32), 1), noise((24, 32), 2) // 8])
    function = functools.partial(felzenszwalb, **OPTIONS, form=form)
    together = jax.jit(jax.vmap(function))(batch)
    for image, labels in zip(batch, together, strict=True):
        np.testing.assert_array_equal(labels, segment(image, **OPTIONS, form=form))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_size_and_an_image_of_one_colour(form, shape):
    options = {"scale": 50.0, "sigma": 1.2, "min_size": 3, "form": form}
    labels = segment(noise(shape), **options)
    assert labels.dtype == np.int32
    assert labels.shape == shape
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))
    assert np.bincount(labels.ravel()).min() >= min(3, labels.size)
    np.testing.assert_array_equal(segment(np.full((*shape, 3), 77, np.uint8), **options), 0)


def test_auto_is_the_exact_form_on_cpu():
    image = noise((24, 32))
    np.testing.assert_array_equal(
        segment(image, **OPTIONS, form="auto"), segment(image, **OPTIONS, form="exact")
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "fast"}, "form is 'fast'; auto, exact, parallel are allowed"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"sigma": -1.0}, "sigma is -1.0"),
        ({"min_size": -2}, "min_size is -2"),
        ({"levels": 0}, "levels is 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        felzenszwalb(noise((4, 4)), **{"scale": 10.0, "min_size": 2, **options})


def test_differences_keep_their_digits_in_nearly_flat_images():
    """Differences of smoothed values in float32 would have errors of parts in a thousand."""
    ramp = np.add.outer(np.arange(60), np.arange(80)) // 40 + 200
    image = np.stack([ramp, ramp[::-1], ramp], axis=-1).astype(np.uint8)
    planes = np.moveaxis(image, -1, 0)
    smooth = scipy.ndimage.gaussian_filter(planes.astype(np.float64), (0, 1.4, 1.4))
    differences = jax.jit(_differences, static_argnums=1)
    for found, axis in zip(differences(jnp.asarray(planes, jnp.float32), 1.4), (2, 1), strict=True):
        expected = np.diff(smooth, axis=axis)
        large = np.abs(expected) > 1e-3
        assert large.sum() > 1000
        np.testing.assert_allclose(found[large], expected[large], rtol=1e-6)
