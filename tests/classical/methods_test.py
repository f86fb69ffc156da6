"""Properties that hold for every classical method."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import classical, sharding
from segjax.classical import batches
from segjax.errors import InputError
from tests import tiny

SMALL = {  # options that suit images of a few pixels
    "slic": {"regions": 12},
    "kmeans": {"clusters": 3},
    "spectral": {"segments": 3, "radius": 2.0},
    "ncut_regions": {"regions": 24},
    "felzenszwalb": {"min_size": 4},
    "grabcut": {"components": 2, "iterations": 2},
}
USERS = "tests.classical.methods_test:strips"
EVERY = (*classical.METHODS, USERS)
COUNTS = {"slic": "regions", "kmeans": "clusters", "spectral": "segments"}
SIZE = (23, 31)


def strips(image: jax.Array, *, count: int) -> jax.Array:
    """A user's method: vertical strips."""
    height, width = image.shape[:2]
    columns = jnp.arange(width) * min(count, width) // width
    return jnp.broadcast_to(columns.astype(jnp.int32), (height, width))


def build(name: str, **options):
    if name == USERS:
        return classical.build(name, **{"count": 3} | options)
    recipe = importlib.import_module(f"segjax.configs.{name}").get_config()
    return classical.build(**{**recipe.method, **SMALL[name], **options})


def photographs(count: int, size=SIZE) -> list[np.ndarray]:
    """Crops of a photograph at `count` places: uint8 [count, H, W, 3]."""
    image = pytest.importorskip("skimage.data").coffee()[::4, ::4]
    rng = np.random.default_rng(0)
    height, width = size
    corners = rng.integers(0, (image.shape[0] - height, image.shape[1] - width), (count, 2))
    return np.stack([image[y : y + height, x : x + width] for y, x in corners])


def arguments(name: str, images: np.ndarray) -> list[np.ndarray]:
    """The method's arguments for a batch."""
    if not classical.takes_box(build(name)):
        return [images]
    height, width = images.shape[1:3]
    box = np.array([height // 4, width // 5, height - height // 5, width - width // 4], np.int32)
    return [images, np.tile(box, (len(images), 1))]


def check_partition(labels: np.ndarray, size: tuple[int, int]) -> None:
    assert labels.shape == size
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))


@pytest.mark.parametrize(
    "name",
    # ncut_test.py tests a batch, too, and three programs with a loop of eigenvectors are slow.
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "ncut_regions" else name
        for name in EVERY
    ],
)
def test_a_batch_and_eight_devices_give_what_single_images_give(name):
    method = build(name)
    arrays = arguments(name, photographs(16))  # two on each device
    # Without LLVM's optimisation the loops of eigenvectors round otherwise in a batch.
    options = tiny.OPTIMISED if name == "ncut_regions" else None
    single = jax.jit(method, compiler_options=options)
    expected = [np.asarray(single(*(array[row] for array in arrays))) for row in range(16)]
    assert any(labels.max() > 0 for labels in expected)
    for labels in expected:
        check_partition(labels, SIZE)
    many = batches.over_batch(method, sharding.make_mesh(1))
    spread = many.lower(*arrays).compile(options)(*arrays)
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_array_equal(spread, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), SIZE])
@pytest.mark.parametrize("name", EVERY)
def test_a_constant_image_of_any_size_is_right_or_a_clear_error(name, size):
    images = np.full((1, *size, 3), 77, np.uint8)
    pixels = size[0] * size[1]
    options = {COUNTS[name]: min(3, pixels)} if name in COUNTS else {}
    arrays = arguments(name, images)
    labels = np.asarray(jax.jit(build(name, **options))(*(array[0] for array in arrays)))
    if classical.takes_box(build(name)):
        assert set(np.unique(labels)) <= {0, 1}
    else:
        check_partition(labels, size)


@pytest.mark.parametrize("name", COUNTS)
def test_one_region_is_the_whole_image(name):
    labels = jax.jit(build(name, **{COUNTS[name]: 1}))(photographs(1)[0])
    np.testing.assert_array_equal(labels, np.zeros(SIZE, np.int32))


@pytest.mark.parametrize("name", COUNTS)
def test_more_regions_than_pixels_are_refused(name):
    with pytest.raises(InputError, match=f"{COUNTS[name]}.*7"):
        build(name, **{COUNTS[name]: 7})(np.zeros((2, 3, 3), np.uint8))
