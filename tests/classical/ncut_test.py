"""Normalised cuts of region graphs against loops in numpy, and on images with one answer."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.classical import ncut
from segjax.errors import InputError


def graph(nodes: int, seed: int = 0) -> np.ndarray:
    """Random symmetric weights, 0 on the diagonal: float64 [nodes, nodes]."""
    weights = np.random.default_rng(seed).random((nodes, nodes)) ** 2
    weights = 0.5 * (weights + weights.T)
    np.fill_diagonal(weights, 0)
    return weights


def clusters(sizes, link=1.0, between=0.01) -> np.ndarray:
    """Weights of groups of nodes, strong within and weak between groups."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    weights = np.where(group[:, None] == group, link, between)
    np.fill_diagonal(weights, 0)
    return weights


def padded(weights: np.ndarray, capacity: int) -> jax.Array:
    full = np.zeros((capacity, capacity), np.float32)
    full[: len(weights), : len(weights)] = weights
    return jnp.asarray(full)


def cost(weights: np.ndarray, side: np.ndarray) -> float:
    degree = weights.sum(1) + 1e-3
    across = weights[side][:, ~side].sum()
    return across / degree[side].sum() + across / degree[~side].sum()


def by_hand(weights: np.ndarray, threshold: float) -> list[list[int]]:
    """Shi and Malik's recursion with numpy's eigenvectors, trying every place of the cut."""
    nodes = list(range(len(weights)))
    done, todo = [], [nodes]
    while todo:
        part = todo.pop()
        best = np.inf
        if len(part) > 1:
            within = weights[np.ix_(part, part)]
            degree = within.sum(1) + 1e-3
            root = np.sqrt(degree)
            laplacian = np.diag(within.sum(1)) - within
            vector = np.linalg.eigh(laplacian / np.outer(root, root))[1][:, 1] / root
            sides = [vector <= level for level in np.sort(vector)[:-1]]
            best, side = min(((cost(within, s), s) for s in sides), key=lambda pair: pair[0])
        if best > threshold:
            done.append(part)
            continue
        todo += [[n for n, s in zip(part, side, strict=True) if s == which] for which in (0, 1)]
    return sorted(map(sorted, done))


def parts_of(labels, count) -> list[list[int]]:
    labels = np.asarray(labels)[:count]
    return sorted(np.flatnonzero(labels == k).tolist() for k in np.unique(labels))


def blocks(shape=(48, 64)) -> np.ndarray:
    """An image with a flat colour in each quarter."""
    image = np.zeros((*shape, 3), np.uint8)
    colors = [[200, 40, 40], [40, 180, 40], [40, 40, 220], [230, 230, 90]]
    for color, (top, left) in zip(colors, itertools.product((0, 1), (0, 1)), strict=True):
        rows, columns = shape[0] // 2, shape[1] // 2
        image[top * rows : (top + 1) * rows, left * columns : (left + 1) * columns] = color
    return image


def tiles(shape, side=8) -> np.ndarray:
    """Square superpixels."""
    rows, columns = np.arange(shape[0]) // side, np.arange(shape[1]) // side
    return (rows[:, None] * (columns[-1] + 1) + columns).astype(np.int32)


OPTIONS = {
    "form": "recursive", "threshold": 0.05, "segments": 4, "sigma_color": 12.0,
    "sigma_boundary": 6.0, "histogram": 3.0, "second": 0.3, "assign": "discretize",
    "connected": True, "seed": 0,
}  # fmt: skip


def cut(image, labels, regions=60, **options) -> np.ndarray:
    settings = {**OPTIONS, **options}
    return np.asarray(jax.jit(functools.partial(ncut.cut, regions=regions, **settings))(
        image, labels
    ))  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_the_first_cut_of_a_small_graph_is_near_the_best_of_all(seed):
    weights = clusters([4, 5], between=0.05) + 0.1 * graph(9, seed)
    sides = [np.array(s) for s in itertools.product((False, True), repeat=9) if 0 < sum(s) < 9]
    lowest = min(cost(weights, side) for side in sides)
    found = np.asarray(ncut.recursive_cut(padded(weights, 12), 9, threshold=lowest * 1.001))
    assert cost(weights, found[:9] == found[0]) == pytest.approx(lowest, rel=1e-4)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.8, 1.1])
@pytest.mark.parametrize("seed", range(2))
def test_the_recursion_equals_that_of_a_loop(threshold, seed):
    weights = clusters([5, 3, 6, 4], between=0.02) + 0.3 * graph(18, seed) ** 2
    run = jax.jit(functools.partial(ncut.recursive_cut, threshold=threshold))
    found = run(padded(weights, 24), 18)
    assert parts_of(found, 18) == by_hand(weights, threshold)


def test_a_higher_threshold_gives_more_parts():
    weights = padded(clusters([4, 4, 4], between=0.01) + 0.05 * graph(12), 12)
    counts = [
        len(np.unique(ncut.recursive_cut(weights, 12, threshold=threshold)))
        for threshold in (0.0, 0.5, 2.0)
    ]
    assert counts == [1, 3, 12]


def test_parts_without_a_link_between_them_are_cut_at_any_threshold():
    weights = padded(clusters([3, 2, 4], between=0), 16)
    found = ncut.recursive_cut(weights, 9, threshold=0.0)
    assert parts_of(found, 9) == [[0, 1, 2], [3, 4], [5, 6, 7, 8]]
    np.testing.assert_array_equal(found[9:], np.arange(9, 16))


@pytest.mark.parametrize("assign", ["discretize", "kmeans"])
def test_a_kway_cut_finds_clusters_and_empty_nodes_take_none(assign):
    weights = padded(clusters([5, 3, 7]), 24)
    found = ncut.kway_cut(weights, 15, segments=3, assign=assign)
    assert parts_of(found, 15) == [list(range(5)), [5, 6, 7], list(range(8, 15))]


def test_similarities_equal_those_of_a_loop():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    labels = tiles((12, 16), side=4)
    skimage_color = pytest.importorskip("skimage.color")
    lab = skimage_color.rgb2lab(image)
    weights, touching = ncut.similarity(
        image, labels, regions=14, sigma_color=30.0, sigma_boundary=1e6, histogram=2.0, second=0.5
    )
    mean = [lab[labels == k].mean(0) for k in range(12)]
    roots = []
    for channel, (low, high) in enumerate([(0, 100), (-60, 60), (-60, 60)]):
        bins = np.clip((lab[..., channel] - low) / (high - low) * 12, 0, 11).astype(int)
        roots.append([np.sqrt(np.bincount(bins[labels == k], minlength=12) / 16)
                      for k in range(12)])  # fmt: skip
    for a, b in itertools.combinations(range(12), 2):
        steps = abs(a // 4 - b // 4) + abs(a % 4 - b % 4)
        unlike = ((mean[a] - mean[b]) ** 2).sum() / 900
        unlike += 2 * sum(1 - root[a] @ root[b] for root in roots)
        share = {1: 1.0, 2: 0.5}.get(steps, 0.0)
        assert weights[a, b] == pytest.approx(share * np.exp(-unlike), rel=5e-3, abs=2e-5)
        assert bool(touching[a, b]) == (steps == 1)
    np.testing.assert_array_equal(weights, weights.T)
    np.testing.assert_array_equal(weights[12:], 0)


def test_a_strong_boundary_lowers_the_weight():
    image = blocks()
    options = {"regions": 48, "sigma_color": 1e6, "histogram": 0.0, "second": 0.0}
    weights, touching = ncut.similarity(image, tiles((48, 64)), sigma_boundary=6.0, **options)
    assert touching[2, 3]  # of the same colour
    assert touching[3, 4]  # of different colours
    assert weights[3, 4] < 0.01 < 0.9 < weights[2, 3]


@pytest.mark.parametrize("form", ncut.FORMS)
def test_an_image_of_four_colours_is_cut_between_them(form):
    image = blocks()
    found = cut(image, tiles((48, 64)), form=form)
    expected = np.kron([[0, 1], [2, 3]], np.ones((24, 32)))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("connected", [True, False])
def test_connected_makes_every_piece_of_a_part_a_segment(connected):
    # Links join the outer thirds across the middle one, which is one superpixel wide.
    image = np.full((24, 40, 3), 200, np.uint8)
    image[:, 16:24] = 30
    found = cut(image, tiles((24, 40)), sigma_boundary=1e6, second=1.0, connected=connected)
    strips = np.repeat([0, 1, 2 if connected else 0], [16, 8, 16])
    np.testing.assert_array_equal(found, np.tile(strips, (24, 1)))


def test_ncut_regions_cuts_slics_superpixels():
    found = np.asarray(jax.jit(functools.partial(ncut.ncut_regions, regions=48))(blocks()))
    assert found.dtype == np.int32
    truth = np.kron([[0, 1], [2, 3]], np.ones((24, 32), int))
    right = sum(np.bincount(truth[found == k]).max() for k in np.unique(found))
    assert right > 0.97 * truth.size
    assert found.max() < 8


@pytest.mark.parametrize("shape", [(1, 1), (7, 1)])
def test_kway_cuts_of_constant_and_tiny_images_have_no_gaps_in_numbering(shape):
    image = np.full((*shape, 3), 99, np.uint8)
    regions = min(4, shape[0] * shape[1])
    method = functools.partial(
        ncut.ncut_regions, regions=regions, form="kway", segments=min(2, regions)
    )
    found = np.asarray(jax.jit(method)(image))
    assert found.shape == shape
    assert sorted(np.unique(found)) == list(range(found.max() + 1))


def test_a_kway_cut_of_a_batch_gives_exactly_the_results_of_single_images():
    batch = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3)).astype(np.uint8)
    batch[1] = blocks((24, 32))
    batch[2] = batch[2] // 6 + blocks((24, 32)) // 2
    method = functools.partial(
        ncut.ncut_regions, regions=20, form="kway", segments=3, sigma_boundary=20.0
    )
    together, alone = jax.jit(jax.vmap(method))(batch), jax.jit(method)
    for image, found in zip(batch, together, strict=True):
        np.testing.assert_array_equal(found, alone(image))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"form": "two"}, "form: unknown 'two'; known: recursive, kway"),
        ({"threshold": 2.5}, "threshold is 2.5; 0 to 2"),
        ({"segments": 61}, "segments is 61; 1 to the 60 regions"),
        ({"segments": 0}, "segments is 0"),
        ({"sigma_color": 0}, "sigma_color is 0; numbers above 0"),
        ({"sigma_boundary": -2}, "sigma_boundary is -2"),
        ({"assign": "argmax"}, "assign: unknown 'argmax'; known: kmeans"),
    ],
)
def test_options_out_of_range_are_named(options, text):
    with pytest.raises(InputError, match=text):
        cut(blocks(), tiles((48, 64)), **options)
