import math

import jax
import numpy as np
import pytest

from segjax.classical import slic
from segjax.errors import InputError
from segjax.metrics import partitions

_slic = jax.jit(
    slic.slic, static_argnames=("regions", "compactness", "iterations", "adaptive", "color")
)


def photograph(step: int = 4) -> np.ndarray:
    return pytest.importorskip("skimage.data").coffee()[::step, ::step]


@pytest.mark.parametrize("adaptive", [False, True])
def test_regions_of_a_photograph_are_connected_numbered_and_nearly_as_many_as_requested(adaptive):
    image = photograph()
    labels = np.asarray(_slic(image, regions=80, adaptive=adaptive))
    count = labels.max() + 1
    np.testing.assert_array_equal(np.unique(labels), np.arange(count))
    assert partitions.count_pieces(labels) == count
    assert 60 <= count <= 80


def test_regions_keep_to_an_edge_between_two_colours():
    image = np.zeros((40, 50, 3), np.uint8)
    image[:, 23:] = (200, 180, 40)  # not a multiple of a cell's side
    labels = np.asarray(_slic(image, regions=20))
    assert not set(np.unique(labels[:, :22])) & set(np.unique(labels[:, 24:]))


@pytest.mark.slow
def test_more_compactness_makes_rounder_regions():
    image = photograph()
    loose, tight = (
        partitions.compactness(np.asarray(_slic(image, regions=80, **options)))
        for options in ({}, {"compactness": 40.0})
    )
    assert tight > loose + 0.05


def assign_one_by_one(values, centers, cell, grid, compactness):
    """The labels by the paper's distance to the centres of the nine cells around each pixel."""
    height, width = values.shape[:2]
    square = math.prod(cell)
    labels = np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            best = math.inf
            for gy in range(y // cell[0] - 1, y // cell[0] + 2):
                for gx in range(x // cell[1] - 1, x // cell[1] + 2):
                    if 0 <= gy < grid[0] and 0 <= gx < grid[1]:
                        *color, cy, cx = centers[gy, gx]
                        apart = ((values[y, x] - color) ** 2).sum()
                        place = (y - cy) ** 2 + (x - cx) ** 2
                        distance = apart + compactness**2 / square * place
                        if distance < best:
                            best, labels[y, x] = distance, gy * grid[1] + gx
    return labels


def smoothed(image: np.ndarray) -> np.ndarray:
    """The image blurred by 1 2 1 along both axes, with its border repeated."""
    for axis in (0, 1):
        wide = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        length = image.shape[axis]
        before, middle, after = (np.take(wide, np.arange(k, k + length), axis) for k in range(3))
        image = (before + 2 * middle + after) / 4
    return image


@pytest.mark.parametrize("form", ["_sums_by_row", "_sums_at_once"])
def test_an_assignment_and_an_update_equal_those_of_a_loop(form):
    rng = np.random.default_rng(0)
    cell, grid, shape = (4, 5), (3, 3), (11, 14)
    image = rng.normal(size=(*shape, 2)).astype(np.float32) * 9
    rule = slic._Rule(cell, grid, 7.0, False)
    rule._sums_by_row = getattr(rule, form)
    pixels = slic._pixels(image, cell, grid, "none")
    centers = rule.start(pixels)
    corner = np.stack(np.meshgrid(np.arange(3) * 4, np.arange(3) * 5, indexing="ij"))
    before = np.concatenate([centers.values, centers.places + corner])
    expected = assign_one_by_one(smoothed(image), np.moveaxis(before, 0, -1), cell, grid, 7.0)
    labels, _ = rule.read(rule.nearest(pixels, centers)[0])
    found = slic._from_blocks(labels, cell, grid, shape)
    np.testing.assert_array_equal(found, expected)
    moved = rule.move(pixels, centers)
    after = np.concatenate([moved.values, moved.places + corner])
    y, x = np.mgrid[:11, :14]
    everything = np.concatenate([smoothed(image), y[..., None], x[..., None]], -1)
    for label in range(9):
        mean = everything[expected == label].mean(axis=0)
        np.testing.assert_allclose(after[:, *divmod(label, 3)], mean, rtol=1e-5, atol=1e-4)


def test_any_number_of_channels_is_segmented():
    deep = np.random.default_rng(1).integers(0, 256, (12, 13, 7)).astype(np.uint8)
    assert _slic(deep, regions=9, color="none").shape == (12, 13)


@pytest.mark.slow
def test_a_volume_is_segmented_too():
    volume = np.random.default_rng(1).normal(size=(9, 10, 11, 2)).astype(np.float32)
    volume[:, :5] += 20
    labels = np.asarray(_slic(volume, regions=27, color="none", compactness=2.0))
    assert labels.shape == (9, 10, 11)
    assert not set(np.unique(labels[:, :4])) & set(np.unique(labels[:, 6:]))
    measure = pytest.importorskip("skimage.measure")
    pieces = measure.label(labels, background=-1, connectivity=1).max()
    assert pieces == labels.max() + 1


@pytest.mark.parametrize(("shape", "wanted"), [((321, 481), 400), ((17, 900), 50), ((5, 5), 25)])
def test_a_grid_has_nearly_but_at_most_the_requested_cells(shape, wanted):
    cell = slic.cell_shape(shape, wanted)
    cells = math.prod(math.ceil(n / side) for n, side in zip(shape, cell, strict=True))
    assert 0.85 * wanted <= cells <= wanted


@pytest.mark.slow
def test_with_as_many_regions_as_pixels_every_pixel_is_a_region():
    image = np.random.default_rng(2).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    labels = np.asarray(_slic(image, regions=20, compactness=40.0))
    assert labels.max() + 1 == 20


@pytest.mark.parametrize(
    "options",
    [
        {"regions": 0},
        {"regions": 31},
        {"regions": 3, "compactness": 0.0},
        {"regions": 3, "iterations": 0},
        {"regions": 3, "color": "hsv"},
    ],
)
def test_options_out_of_range_are_refused_by_name(options):
    name = [*options][-1]
    with pytest.raises(InputError, match=name):
        slic.slic(np.zeros((5, 6, 3), np.uint8), **options)
    with pytest.raises(InputError, match=r"image: got shape \(5, 6, 2\)"):
        slic.slic(np.zeros((5, 6, 2), np.uint8), regions=2)
