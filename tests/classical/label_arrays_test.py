"""What the functions of label maps, seeds and boxes do with arrays of any type, shape and value."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import contracts
from segjax.classical import graph_cut, ncut, regions
from segjax.classical.grabcut import grabcut
from segjax.errors import InputError

SIZE = (5, 6)
LABELS = np.arange(30).reshape(SIZE) // 8
SEEDS = np.zeros(SIZE, np.int32)
SEEDS[0, 0], SEEDS[4, 5] = 1, 2
CUTS = {
    "form": "kway", "threshold": 0.1, "segments": 2, "assign": "kmeans", "connected": True,
    "seed": 0, "sigma_color": 9.0, "sigma_boundary": 7.0, "histogram": 4.0, "second": 0.3,
}  # fmt: skip
LINKS = {key: CUTS[key] for key in ("sigma_color", "sigma_boundary", "histogram", "second")}


def photo() -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    image[:, :3] //= 4
    return image


WHOLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FEATURES = np.random.default_rng(1).normal(size=(*SIZE, 2)).astype(np.float32)
CLASSES = np.random.default_rng(2).integers(0, 100, SIZE)
BYTES = np.random.default_rng(3).integers(150, 256, SIZE).astype(np.uint8)

MAPS = {
    "sizes": functools.partial(regions.sizes, regions=300),
    "means": lambda labels: regions.means(FEATURES, labels, regions=300),
    "mean_image": lambda labels: regions.mean_image(photo(), labels, regions=300),
    "adjacency": functools.partial(regions.adjacency, regions=300),
    "merge": lambda labels: regions.merge(FEATURES, labels, regions=8, keep=2),
    "vote": lambda labels: regions.vote(labels, CLASSES, regions=300, classes=100),
    "cut": lambda labels: ncut.cut(photo(), labels, regions=8, **CUTS),
    "similarity": lambda labels: ncut.similarity(photo(), labels, regions=8, **LINKS),
}
"""Functions of labels 0 to K - 1."""

ANY = {
    "components": regions.components,
    "relabel": functools.partial(regions.relabel, regions=300),
    "boundaries": regions.boundaries,
    "boundaries, thin": functools.partial(regions.boundaries, thin=True),
}
"""Functions of any integers."""


@pytest.mark.parametrize("name", [*MAPS, *ANY])
def test_labels_of_any_integer_type_are_the_same_labels(name):
    run = {**MAPS, **ANY}[name]
    jitted = jax.jit(run) if name in ("cut", "similarity") else run
    expected = jax.tree.map(np.asarray, jitted(jnp.asarray(LABELS, jnp.int32)))
    given = [LABELS.astype(kind) for kind in WHOLE]
    if name in ("cut", "similarity"):  # one program each
        given = given[:1]
    for labels in [*given, *([] if name in ("cut", "similarity") else [LABELS.tolist()])]:
        jax.tree.map(np.testing.assert_array_equal, jitted(labels), expected)
    mirrored = np.asfortranarray(LABELS)
    if name not in ("cut", "similarity"):
        jax.tree.map(np.testing.assert_array_equal, run(mirrored), expected)


@pytest.mark.parametrize("name", [*MAPS, *ANY])
def test_labels_that_are_none_are_refused(name):
    run = {**MAPS, **ANY}[name]
    for kind in ("float32", "float16", "float64", "complex64"):
        text = f"labels: got {kind}; allowed: integers"
        with pytest.raises(InputError, match=text):
            run(LABELS.astype(kind))
        with pytest.raises(InputError, match="labels: got .*; allowed: integers"):
            jax.eval_shape(run, LABELS.astype(kind))
    with pytest.raises(InputError, match=r"labels: got shape \(0, 6\); allowed: .*at least 1"):
        run(LABELS[:0])
    if name in MAPS:
        for odd in (-1, 2**31, 2**40):
            labels = LABELS.copy()
            labels[1, 1] = odd
            with pytest.raises(InputError, match=f"labels: got values of .*{odd}.*; allowed: 0"):
                run(labels)


def test_other_labels_belong_to_no_region_of_a_program():
    labels = LABELS.astype(np.int32)
    labels[0, 0], labels[0, 1] = -1, 9
    there = (labels >= 0) & (labels < 4)
    sizes = jax.jit(functools.partial(regions.sizes, regions=4))(labels)
    np.testing.assert_array_equal(sizes, [(labels == k).sum() for k in range(4)])
    means = jax.jit(functools.partial(regions.means, regions=4))(FEATURES, labels)
    expected = [FEATURES[labels == k].mean(axis=0) for k in range(4)]
    np.testing.assert_allclose(means, expected, rtol=1e-5)
    run = jax.jit(functools.partial(regions.vote, regions=4, classes=3))
    voted = run(labels, np.ones(SIZE, np.uint8))
    np.testing.assert_array_equal(voted, np.where(there, 1, 3))


def test_large_integers_that_differ_stay_different():
    labels = LABELS.astype(np.int64) + 2**40
    labels[0, 0] = labels[0, 1] + 2**32  # equal in the lower half
    expected = np.unique(labels, return_inverse=True)[1].reshape(SIZE)
    found = regions.components(labels)
    np.testing.assert_array_equal(found, regions.components(expected))
    np.testing.assert_array_equal(regions.boundaries(labels), regions.boundaries(expected))


def test_a_mask_has_pieces_and_boundaries():
    mask = LABELS == 1
    np.testing.assert_array_equal(regions.components(mask), regions.components(mask.astype(int)))
    np.testing.assert_array_equal(regions.boundaries(mask), regions.boundaries(mask.astype(int)))


def test_many_regions_fit_a_map_of_bytes():
    """A number of regions beyond the labels' type."""
    labels = np.arange(400).reshape(20, 20) % 200
    expected = regions.relabel(labels.astype(np.int32))
    np.testing.assert_array_equal(regions.relabel(labels.astype(np.uint8)), expected)


def test_values_of_bytes_are_added_without_an_overflow():
    plain = regions.adjacency(LABELS, BYTES.astype(np.float32), regions=4)
    for kind in ("uint8", "uint16", "int32", "float64", "float16"):
        found = regions.adjacency(LABELS, BYTES.astype(kind), regions=4)
        np.testing.assert_array_equal(found[1], plain[1])
    expected = regions.means(BYTES[..., None].astype(np.float32), LABELS, regions=4)
    for kind in ("uint8", "uint16", "int32", "float64", "float16"):
        found = regions.means(BYTES[..., None].astype(kind), LABELS, regions=4)
        np.testing.assert_array_equal(found, expected)
    for run in (
        lambda x: regions.adjacency(LABELS, x, regions=4),
        lambda x: regions.means(x[..., None], LABELS, regions=4),
    ):
        with pytest.raises(InputError, match="values: got nan; allowed: finite numbers"):
            run(np.where(LABELS == 1, np.nan, 0))
        with pytest.raises(InputError, match=r"values: got shape \(4, 6.*allowed: \[5, 6|labels"):
            run(BYTES[:4])


def test_mean_colours_are_those_of_an_image():
    grey = photo()[..., 0]
    found = regions.mean_image(grey, LABELS, regions=4)
    np.testing.assert_array_equal(
        found, regions.mean_image(grey[..., None], LABELS, regions=4)[..., 0]
    )
    with pytest.raises(InputError, match="image: got uint16; allowed: uint8, or floats of 0 to"):
        regions.mean_image(photo().astype(np.uint16), LABELS, regions=4)


def test_seeds_of_any_integer_type_are_the_same_and_others_are_refused():
    image = photo()
    plain = graph_cut.checked_seeds(SEEDS, image)
    for kind in WHOLE:
        found = graph_cut.checked_seeds(SEEDS.astype(kind), image)
        assert found.dtype == jnp.int32
        np.testing.assert_array_equal(found, plain)
    cases = (
        (SEEDS.astype(np.float32), "seeds: got float32; allowed: integers"),
        (SEEDS[:3], r"seeds: got shape \(3, 6\); allowed: \[5, 6\]"),
        (np.where(SEEDS == 1, 255, 0), "seeds: got values of 0 to 255; allowed: 0 to 2"),
        (SEEDS - 1, "seeds: got values of -1 to 1; allowed: 0 to 2"),
    )
    for seeds, text in cases:
        with pytest.raises(InputError, match=text):
            graph_cut.graph_cut(image, seeds)
        with pytest.raises(InputError, match=text):
            grabcut(image, [0, 0, 5, 6], seeds=seeds)


@pytest.mark.slow
def test_seeds_in_bytes_are_a_program_too():
    run = jax.jit(functools.partial(graph_cut.graph_cut, components=2))
    np.testing.assert_array_equal(run(photo(), SEEDS.astype(np.uint8)), run(photo(), SEEDS))


def test_a_box_is_four_integers_of_any_size():
    for box, text in (
        ([1, 2, 3], r"box: got shape \(3,\); allowed: \[4\]"),
        ([0.5, 1, 3, 3], "box: got float64; allowed: integers"),
        (np.full(4, np.nan, np.float32), "box: got float32; allowed: integers"),
    ):
        with pytest.raises(InputError, match=text):
            grabcut(photo(), box)
    for kind, most in (("int64", 2**40), ("uint32", 2**32 - 1)):
        box = np.array([0, 0, most, most], kind)
        np.testing.assert_array_equal(contracts.as_int32(box), [0, 0, 2**31 - 1, 2**31 - 1])
    traced = jax.jit(contracts.as_int32)(np.array([2**32 - 1], np.uint32))
    np.testing.assert_array_equal(traced, [2**31 - 1])
