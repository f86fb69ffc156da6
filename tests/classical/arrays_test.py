"""What every public function of segjax.classical does with arrays of any type, shape and value.

Either it is what the function makes of the same numbers in their plain type, or one clear line.
"""

import functools
import importlib
import inspect
import pathlib
import pkgutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import segjax.classical
from segjax import classical, contracts
from segjax.classical import color, descriptors, graph_cut, kmeans, ncut, slic, spectral
from segjax.classical.felzenszwalb import felzenszwalb
from segjax.classical.grabcut import grabcut
from segjax.errors import InputError
from tests.classical.label_arrays_test import ANY, CUTS, LABELS, LINKS, MAPS, SEEDS, SIZE, photo

IMAGES = {
    "slic": functools.partial(slic.slic, regions=4),
    "kmeans": functools.partial(kmeans.kmeans, clusters=2),
    "minibatch_kmeans": functools.partial(kmeans.minibatch_kmeans, clusters=2, batch=8, steps=2),
    "spectral": functools.partial(spectral.spectral, segments=2, radius=1.0, rounds=1),
    "spectral, reduced": functools.partial(spectral.spectral, segments=2, radius=1.0, side=4),
    "ncut_regions": functools.partial(ncut.ncut_regions, regions=6, form="kway", segments=2),
    "felzenszwalb": functools.partial(felzenszwalb, scale=50.0, min_size=2),
    "grabcut": lambda image: grabcut(image, [1, 1, 4, 5], components=1, iterations=1),
    "graph_cut": lambda image: graph_cut.graph_cut(image, SEEDS, components=1),
    "contrast": functools.partial(graph_cut.contrast, smoothness=9.0, sigma=None, connectivity=8),
    "describe_pixels": descriptors.describe_pixels,
    "describe_pixels, rgb": functools.partial(descriptors.describe_pixels, kind="rgb"),
    "cut": lambda image: ncut.cut(image, LABELS, regions=4, **CUTS),
    "similarity": lambda image: ncut.similarity(image, LABELS, regions=4, **LINKS),
}
"""Functions of an image."""

SLOW = {"slic", "spectral", "spectral, reduced", "ncut_regions", "grabcut", "graph_cut", "cut"}

SAME = {
    "float32": lambda x: x.astype(np.float32),
    "float64": lambda x: x.astype(np.float64),
    "float16": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: x.astype(ml_dtypes.bfloat16),
    "big endian": lambda x: x.astype(">f4"),
    "of jax": lambda x: jnp.asarray(x, jnp.float16),
    "not contiguous": lambda x: np.asfortranarray(np.repeat(x, 2, axis=1))[:, ::2],
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "list": lambda x: x.tolist(),
    "list of floats": lambda x: x.astype(float).tolist(),
}
"""The same numbers in other clothes."""

WRONG = {  # seen from type and shape alone
    "int32": (lambda x: x.astype(np.int32), "image: got int32; allowed: uint8, or floats"),
    "uint16": (lambda x: x.astype(np.uint16) * 257, "image: got uint16; allowed: uint8, or floats"),
    "int8": (lambda x: x.astype(np.int8), "image: got int8; allowed"),
    "bool": (lambda x: x > 99, "image: got bool; allowed"),
    "complex": (lambda x: x.astype(np.complex64), "image: got complex64; allowed"),
    "alpha": (lambda x: np.dstack([x, x[..., :1]]), r"image: got shape \(5, 6, 4\); allowed: \[H"),
    "one channel": (lambda x: x[..., :1], r"image: got shape \(5, 6, 1\); allowed"),
    "row": (lambda x: x[0, :, 0], r"image: got shape \(6,\); allowed"),
    "batch": (lambda x: np.stack([x] * 2)[None], r"image: got shape \(1, 2, 5, 6, 3\); allowed"),
    "empty": (lambda x: x[:0], r"image: got shape \(0, 6, 3\); allowed: .*at least 1"),
    "no columns": (lambda x: x[:, :0], r"image: got shape \(5, 0, 3\); allowed"),
}


def with_value(value: float, x: np.ndarray) -> np.ndarray:
    out = x.astype(np.float32)
    out[2, 3, 1] = value
    return out


ODD = {  # seen where values are known
    "nan": (functools.partial(with_value, np.nan), "image: got nan; allowed: floats of 0 to 255"),
    "inf": (functools.partial(with_value, np.inf), "image: got inf; allowed: floats of 0 to 255"),
    "negative": (functools.partial(with_value, -3), r"image: got floats of -3 to \d+; allowed: 0"),
    "bright": (functools.partial(with_value, 256), "image: got floats of 0 to 256; allowed: 0 to"),
    "0 to 1": (lambda x: x / np.float32(255), "allowed: 0 to 255, not 0 to 1"),
    "16 bits": (lambda x: x * np.float32(257), "allowed: 0 to 255"),
    "large list": (lambda x: (x.astype(int) + 1).tolist(), "image: got values of 1 to 256"),
    "huge list": (lambda x: (x.astype(object) + 2**80).tolist(), "image: got object; allowed"),
    "ragged list": (lambda x: [[1, 2], [3]], "image: got a list that is no array; allowed"),
    "text": (lambda x: "photo.jpg", r"image: got shape \(\); allowed"),
}


def blackened(image: np.ndarray) -> np.ndarray:
    image[0, 0], image[1, 1] = 0, 255
    return image


@pytest.fixture
def stopped(monkeypatch):
    """Ends every function once its image is checked; returns what came of the image."""
    check = contracts.image

    class Passed(Exception):
        pass

    def checked(*args, **options):
        raise Passed(check(*args, **options))

    monkeypatch.setattr(contracts, "image", checked)
    monkeypatch.setattr(contracts, "_image", checked)

    def run(method, image):
        with pytest.raises(Passed) as found:
            method(image)
        return found.value.args[0]

    return run


@pytest.mark.parametrize("name", IMAGES)
def test_the_same_image_in_another_type_is_the_same(name, stopped):
    image = blackened(photo())
    plain = stopped(IMAGES[name], image)
    assert plain.dtype == jnp.uint8
    np.testing.assert_array_equal(plain, image)
    for clothes, change in SAME.items():
        found = stopped(IMAGES[name], change(image))
        whole = clothes in ("not contiguous", "reversed", "list")
        assert found.dtype == (jnp.uint8 if whole else jnp.float32), clothes
        np.testing.assert_array_equal(found, plain, err_msg=clothes)
    grey = stopped(IMAGES[name], image[..., 0])
    np.testing.assert_array_equal(grey, np.stack([image[..., 0]] * 3, -1))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in IMAGES]
)
def test_floats_and_grey_images_give_what_bytes_and_three_channels_give(name):
    image = photo()
    image[...] = image[..., :1]
    run = jax.jit(IMAGES[name])
    expected = jax.tree.map(np.asarray, run(image))
    for other in (image.astype(np.float32), image[..., 0]):
        for found, plain in zip(*map(jax.tree.leaves, (run(other), expected)), strict=True):
            # Each program rounds in its own way, by which no label may change.
            close = {"rtol": 1e-5, "atol": 1e-4} if plain.dtype == np.float32 else {"rtol": 0}
            np.testing.assert_allclose(found, plain, **close)


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_no_image_is_refused_in_one_line_traced_or_not(name):
    image = blackened(photo())
    for change, text in WRONG.values():
        with pytest.raises(InputError, match=text) as refused:
            IMAGES[name](change(image))
        assert "\n" not in str(refused.value)
        with pytest.raises(InputError, match=text):
            jax.eval_shape(IMAGES[name], change(image))
    for change, text in ODD.values():
        with pytest.raises(InputError, match=text) as refused:
            IMAGES[name](change(image))
        assert "\n" not in str(refused.value)


def test_lab_takes_floats_of_0_to_1_and_says_so():
    image = blackened(photo())
    plain = np.asarray(color.srgb_to_lab(image))
    found = color.srgb_to_lab((image / 255).astype(np.float16))
    np.testing.assert_allclose(found, plain, atol=0.3)
    for change, text in (
        (lambda x: x.astype(np.float32), "image: got floats of 0 to 255; allowed: 0 to 1"),
        (lambda x: x.astype(np.int32), "image: got int32; allowed: uint8, or floats of 0 to 1"),
        (lambda x: with_value(np.nan, x), "image: got nan; allowed: floats of 0 to 1"),
        (lambda x: x[..., 0], r"image: got shape \(5, 6\); allowed: \[..., H, W, 3\]"),
    ):
        with pytest.raises(InputError, match=text):
            color.srgb_to_lab(change(image))


def test_a_volume_or_any_channels_are_what_slic_says():
    volume = np.zeros((2, 5, 6, 3), np.float32)
    assert jax.eval_shape(functools.partial(slic.slic, regions=4), volume).shape == (2, 5, 6)
    deep = functools.partial(slic.slic, regions=4, color="none")
    assert jax.eval_shape(deep, np.zeros((5, 6, 7), bool)).shape == SIZE
    for odd, text in (
        (np.zeros(SIZE), r"image: got shape \(5, 6\); allowed: \[H, W, C\] or \[D, H, W, C\]"),
        (np.full((*SIZE, 2), np.nan), "image: got nan; allowed: finite numbers"),
        (np.full((*SIZE, 2), 1e20), "image: got values of 1e\\+20 to 1e\\+20; allowed: -1e\\+15"),
        (np.zeros((*SIZE, 2), complex), "image: got complex128; allowed: integers or floats"),
    ):
        with pytest.raises(InputError, match=text):
            deep(odd)


@pytest.mark.slow
def test_large_values_have_the_regions_of_small_ones():
    """Centres outside of the grid, which no pixel may choose, once had a colour of 1e6."""
    image = np.random.default_rng(0).choice([0, 1e6], (12, 12, 1)).astype(np.float32)
    run = functools.partial(slic.slic, regions=9, color="none")
    large = jax.jit(functools.partial(run, compactness=1024.0))(image)
    small = jax.jit(functools.partial(run, compactness=1.0))(image / 1024)
    np.testing.assert_array_equal(large, small)


# Points and graphs


@pytest.mark.parametrize("kind", ["uint8", "int32", "uint16", "float64", "float16", "int64"])
def test_points_of_any_type_are_the_same_points(kind):
    points = np.array([[0, 1], [2, 1], [90, 91], [93, 90]])
    expected = kmeans.fit(points.astype(np.float32), clusters=2)
    found = kmeans.fit(points.astype(kind), clusters=2, start=None)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_points_and_graphs_that_are_none_are_refused():
    points = np.zeros((5, 2), np.float32)
    odd = np.where(np.arange(10).reshape(5, 2) == 3, np.nan, points)
    square = np.zeros((4, 4))
    for run, text in (
        (lambda: kmeans.fit(odd, clusters=2), "points: got nan; allowed: finite numbers"),
        (lambda: kmeans.fit(points[:, 0], clusters=2), r"points: got shape \(5,\); allowed: \[N"),
        (lambda: kmeans.fit(points[:0], clusters=2), r"points: got shape \(0, 2\); allowed"),
        (lambda: kmeans.fit(points * 1j, clusters=2), "points: got complex64; allowed: integers"),
        (lambda: kmeans.fit(points + 1e300, clusters=1), "points: got inf; allowed: finite"),
        (lambda: kmeans.fit(points, clusters=2, start=odd[:2]), "start: got nan; allowed: finite"),
        (lambda: spectral.discretize(odd), "rows: got nan; allowed: finite numbers"),
        (lambda: ncut.recursive_cut(odd, 5, threshold=1.0), r"weights: got shape \(5, 2\)"),
        (lambda: ncut.recursive_cut(square - 1, 4, threshold=1.0), "weights: got values of -1 to"),
        (lambda: ncut.kway_cut(square * np.inf, 4, segments=2, assign="kmeans"), "weights: got n"),
    ):
        with np.errstate(invalid="ignore", over="ignore"), pytest.raises(InputError, match=text):
            run()


# A user's method


def returning(image: jax.Array, *, kind: str, shape: tuple[int, ...] = SIZE) -> jax.Array:
    """A user's method: ones."""
    return jnp.ones(shape, kind)


def test_a_users_method_returns_a_label_map_or_is_told_so():
    name = f"{__name__}:returning"
    for kind in ("bool", "uint8", "int16", "uint32"):
        labels = classical.build(name, kind=kind)(photo())
        assert labels.dtype == jnp.int32
        np.testing.assert_array_equal(labels, np.ones(SIZE))
    with pytest.raises(InputError, match="labels of .*returning: got float32; allowed: integers"):
        classical.build(name, kind="float32")(photo())
    with pytest.raises(InputError, match=r"got shape \(5, 6, 1\); allowed: \[5, 6\]"):
        jax.eval_shape(classical.build(name, kind="uint8", shape=(*SIZE, 1)), photo())


# Nothing is forgotten

TESTED = {
    *(name.partition(",")[0] for name in (*IMAGES, *MAPS, *ANY)),
    "srgb_to_lab", "fit", "discretize", "recursive_cut", "kway_cut", "checked_seeds",
    "min_cut",  # graph_cut_test.py
}  # fmt: skip
STEPS = {
    "augmenting", "pushing", "barriers", "batches", "connectivity", "eigen", "gmm", "lloyd",
    "spanning",
}  # fmt: skip
"""Modules whose functions are steps of methods: they get arrays that have been checked."""
PARTS = {
    "color": {"image_planes", "lab_planes"},
    "descriptors": {
        "describe_points", "count", "check", "filter_energy", "gaussian_taps", "convolve",
    },
    "graph_cut": {"flow", "both_ways", "clamped", "proved"},
    "slic": {"cell_shape"},
    "spectral": {
        "cluster", "unit_rows", "grid_links", "grid_vectors", "degrees", "graph_shape", "shrink",
        "enlarge",
    },
}  # fmt: skip
"""Functions beside a method that are steps of it, or take no arrays."""


def test_every_public_function_of_arrays_is_in_a_table():
    left = set()
    for module in pkgutil.iter_modules([str(pathlib.Path(segjax.classical.__file__).parent)]):
        if module.name in STEPS:
            continue
        found = importlib.import_module(f"segjax.classical.{module.name}")
        for name, value in vars(found).items():
            ours = getattr(value, "__module__", "") == found.__name__ and callable(value)
            public = ours and not name.startswith("_") and not inspect.isclass(value)
            if public and name not in TESTED | PARTS.get(module.name, set()):
                left.add(f"{module.name}.{name}")
    assert not left
