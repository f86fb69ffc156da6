import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.classical import augmenting, graph_cut, pushing
from segjax.errors import InputError

_SOLVERS = {"augmenting": augmenting.solve, "pushing": pushing.solve}


def _problem(height, width, connectivity, seed, *, high=20):
    rng = np.random.default_rng(seed)
    unary = rng.integers(0, high, (height, width, 2)).astype(np.int32)
    pairwise = rng.integers(0, high // 2, (connectivity // 2, height, width)).astype(np.int32)
    return unary, pairwise


def _edges(pairwise):
    """(pixel, pixel, capacity) of every edge within the image."""
    height, width = pairwise.shape[1:]
    for capacity, (dy, dx) in zip(pairwise, augmenting.STEPS, strict=False):
        for y, x in itertools.product(range(height), range(width)):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                yield y * width + x, (y + dy) * width + x + dx, capacity[y, x]


def _energy(labels, unary, pairwise):
    labels = np.asarray(labels).ravel()
    total = np.take_along_axis(unary.reshape(-1, 2), labels[:, None], 1).sum()
    return total + sum(c for p, q, c in _edges(pairwise) if labels[p] != labels[q])


def _brute_force(unary, pairwise):
    count = unary.shape[0] * unary.shape[1]
    labelings = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    costs = unary.reshape(-1, 2)
    totals = np.where(labelings, costs[:, 1], costs[:, 0]).sum(1)
    for p, q, capacity in _edges(pairwise):
        totals = totals + capacity * (labelings[:, p] != labelings[:, q])
    return totals.min()


def _solved(name, unary, pairwise):
    """Labels by the named solver, on any platform."""
    caps = graph_cut.both_ways(jnp.asarray(graph_cut._within(jnp.asarray(pairwise))))
    excess = graph_cut.clamped(jnp.asarray(unary[..., 1] - unary[..., 0]), caps)
    solve = jax.jit(functools.partial(_SOLVERS[name], limit=100_000))
    excess, caps, sink = solve(excess, caps)
    assert bool(graph_cut.proved(excess, caps, sink))
    return np.asarray(sink).astype(np.int32)


_min_cut = jax.jit(graph_cut.min_cut, static_argnames="effort")


@pytest.mark.parametrize("solver", _SOLVERS)
@pytest.mark.parametrize("connectivity", [4, 8])
def test_the_energy_is_the_least_of_all_labelings(solver, connectivity):
    for seed in range(8):
        unary, pairwise = _problem(3, 4, connectivity, seed)
        labels = _solved(solver, unary, pairwise)
        assert _energy(labels, unary, pairwise) == _brute_force(unary, pairwise)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_both_solvers_give_the_same_labels_and_scipys_flow(connectivity):
    sparse = pytest.importorskip("scipy.sparse")
    from scipy.sparse import csgraph

    for seed in range(3):
        unary, pairwise = _problem(9, 13, connectivity, seed, high=1000)
        labels = _solved("augmenting", unary, pairwise)
        np.testing.assert_array_equal(labels, _solved("pushing", unary, pairwise))
        count = labels.size
        # Source -> pixel carries the cost of label 1, pixel -> sink that of label 0.
        entries = [(p, q, c) for p, q, c in _edges(pairwise)]
        entries += [(q, p, c) for p, q, c in entries]
        entries += [(count, p, c[1]) for p, c in enumerate(unary.reshape(-1, 2))]
        entries += [(p, count + 1, c[0]) for p, c in enumerate(unary.reshape(-1, 2))]
        rows, columns, values = (np.array(x, np.int32) for x in zip(*entries, strict=True))
        graph = sparse.csr_array((values, (rows, columns)), shape=(count + 2, count + 2))
        flow = csgraph.maximum_flow(graph, count, count + 1).flow_value
        assert _energy(labels, unary, pairwise) == flow


@pytest.mark.parametrize("connectivity", [4, 8])
def test_both_solvers_continue_from_any_residual_state(connectivity):
    rng = np.random.default_rng(connectivity)
    solvers = {k: jax.jit(functools.partial(v, limit=100_000)) for k, v in _SOLVERS.items()}
    few = jax.jit(functools.partial(augmenting.solve, limit=9))
    inside = graph_cut.both_ways(
        graph_cut._within(jnp.ones((connectivity // 2, 13, 17), jnp.int32))
    )
    for high in (2, 20, 2**20):
        caps = inside * rng.integers(
            0, high, inside.shape, np.int32
        )  # different in the two directions
        excess = jnp.asarray(rng.integers(-2 * high, 2 * high, (13, 17), np.int32))
        for _ in range(3):
            states = {name: solve(excess, caps) for name, solve in solvers.items()}
            states["in parts"] = solvers["augmenting"](*few(excess, caps)[:2])
            for state in states.values():
                assert bool(graph_cut.proved(*state))
                np.testing.assert_array_equal(state[2], states["pushing"][2])
            excess, caps, _ = states["augmenting"]
            excess += rng.integers(-high, high, (13, 17), np.int32)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_the_energy_on_a_photograph_is_that_of_pymaxflow(connectivity):
    maxflow = pytest.importorskip("maxflow")
    data = pytest.importorskip("skimage.data")
    image = data.coffee()[100:260:2, 200:400:2]
    pairwise = graph_cut.contrast(image, smoothness=20.0, sigma=None, connectivity=connectivity)
    bright = image.astype(np.float32).mean(-1) / 25
    unary = np.stack([bright, 8 - bright], -1)
    cut = _min_cut(unary, pairwise)
    graph = maxflow.GraphFloat()
    nodes = graph.add_grid_nodes(bright.shape)
    for capacity, (dy, dx) in zip(np.asarray(pairwise), augmenting.STEPS, strict=False):
        structure = np.zeros((3, 3))
        structure[1 + dy, 1 + dx] = 1
        graph.add_grid_edges(nodes, capacity, structure, symmetric=True)
    graph.add_grid_tedges(nodes, unary[..., 1], unary[..., 0])
    assert bool(cut.optimal)
    assert 0 < int(cut.labels.sum()) < cut.labels.size
    np.testing.assert_allclose(float(cut.energy), graph.maxflow(), rtol=1e-5)


def test_without_edges_each_pixel_takes_its_cheaper_label():
    unary = np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)
    unary[0, 0] = [1e-6, 0]
    cut = _min_cut(unary, np.zeros((2, 5, 7), np.float32))
    np.testing.assert_array_equal(cut.labels, unary.argmin(-1))


@pytest.mark.parametrize("capacity", [1e6, 1e30])
def test_huge_edges_give_one_label_everywhere(capacity):
    unary = np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)
    pairwise = np.full((4, 5, 7), capacity, np.float32)
    for shift in (-1.0, 1.0):
        moved = unary + np.array([0, shift], np.float32)
        cut = _min_cut(moved, pairwise)
        assert bool(cut.optimal)
        assert set(np.unique(cut.labels)) == {int(moved[..., 1].sum() < moved[..., 0].sum())}


def test_forbidden_labels_are_never_given():
    unary, pairwise = _problem(6, 6, 8, 0)
    unary = unary.astype(np.float32)
    unary[1, 1], unary[4, 4] = [np.inf, 0], [0, np.inf]
    cut = _min_cut(unary, pairwise.astype(np.float32) * 100)
    assert (int(cut.labels[1, 1]), int(cut.labels[4, 4])) == (1, 0)
    assert bool(cut.optimal)
    assert np.isfinite(float(cut.energy))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_any_size_is_cut(shape):
    unary, pairwise = _problem(*shape, 8, 0)
    cut = _min_cut(unary, pairwise)
    assert float(cut.energy) == _brute_force(unary, pairwise)


def test_a_batch_equals_single_images():
    problems = [_problem(8, 11, 8, seed, high=200) for seed in range(3)]
    unary, pairwise = (np.stack(x) for x in zip(*problems, strict=True))
    batch = jax.jit(jax.vmap(graph_cut.min_cut))(unary, pairwise)
    pushed = jax.vmap(functools.partial(pushing.solve, limit=10_000))
    caps = jax.vmap(lambda x: graph_cut.both_ways(graph_cut._within(x)))(jnp.asarray(pairwise))
    sink = jax.jit(pushed)(jnp.asarray(unary[..., 1] - unary[..., 0]), caps)[2]
    for k in range(3):
        np.testing.assert_array_equal(batch.labels[k], _min_cut(*problems[k]).labels)
        np.testing.assert_array_equal(batch.labels[k], sink[k])


def test_an_interrupted_search_is_not_certified():
    unary, pairwise = _problem(12, 12, 4, 1)
    caps = graph_cut.both_ways(graph_cut._within(jnp.asarray(pairwise)))
    excess = jnp.asarray(unary[..., 1] - unary[..., 0])
    for solve in _SOLVERS.values():
        assert not bool(graph_cut.proved(*solve(excess, caps, limit=0)))


def test_seeds_keep_their_label_and_spread_to_similar_colours():
    rng = np.random.default_rng(0)
    truth = np.zeros((24, 30), bool)
    truth[6:18, 8:22] = True
    image = np.where(truth[..., None], [200, 60, 40], [40, 80, 160]) + rng.integers(
        -20, 20, (24, 30, 3)
    )
    seeds = np.zeros(truth.shape, np.int32)
    seeds[10:13, 12:16], seeds[1:3, 2:8] = 2, 1
    seeds[3, 3] = 2  # against its colour
    labels = np.asarray(jax.jit(graph_cut.graph_cut)(image.astype(np.uint8), seeds))
    assert labels.dtype == np.int32
    assert labels[3, 3] == 1
    truth[3, 3] = True
    assert (labels == truth).mean() > 0.99


def test_edges_are_weaker_across_contrast_and_longer_distances():
    image = np.zeros((2, 3, 3), np.uint8)
    image[:, 2] = 30
    weights = np.asarray(
        graph_cut.contrast(jnp.asarray(image), smoothness=10.0, sigma=30.0, connectivity=8)
    )
    assert weights[0, 0, 0] == pytest.approx(10)
    assert weights[0, 0, 1] == pytest.approx(10 * np.exp(-1.5))
    assert weights[2, 0, 0] == pytest.approx(10 / np.sqrt(2))
    assert not weights[0, :, 2].any()
    assert not weights[1:, 1].any()
    assert not weights[3, 0, 0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"connectivity": 6}, "connectivity: got 6"),
        ({"smoothness": -1.0}, "smoothness: got -1.0"),
        ({"sigma": 0.0}, "sigma: got 0.0"),
        ({"components": 0}, "components: got 0"),
    ],
)
def test_options_out_of_range_are_named(options, text):
    with pytest.raises(InputError, match=text):
        graph_cut.graph_cut(jnp.zeros((3, 3, 3), jnp.uint8), jnp.zeros((3, 3), int), **options)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(InputError, match="pairwise: got shape"):
        graph_cut.min_cut(jnp.zeros((3, 4, 2)), jnp.zeros((2, 4, 3)))
    with pytest.raises(InputError, match="unary: got shape"):
        graph_cut.min_cut(jnp.zeros((3, 4)), jnp.zeros((2, 3, 4)))


WHOLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


def _dear_to_bytes():
    """Costs up to 127 whose differences and sums leave the range of int8 and uint8."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 128, (6, 6, 2)), rng.integers(0, 60, (2, 6, 6))


def test_costs_of_any_type_have_the_least_energy():
    unary, pairwise = _dear_to_bytes()
    expected = graph_cut.min_cut(unary.astype(np.int32), pairwise.astype(np.int32))
    assert float(expected.energy) == _energy(expected.labels, unary, pairwise)
    kinds = [(kind, kind) for kind in (*WHOLE, "float16", "float32", "float64", ">i2", ">f4")]
    kinds += [("uint8", "float32"), ("uint16", "float16"), ("float64", "uint8"), ("int8", "uint32")]
    for costs, capacities in kinds:
        found = graph_cut.min_cut(unary.astype(costs), pairwise.astype(capacities))
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    found = graph_cut.min_cut(unary.tolist(), pairwise.tolist())
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    found = graph_cut.min_cut(np.asfortranarray(unary), pairwise[:, ::-1][:, ::-1])
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_bits_are_costs():
    unary, pairwise = (x > 30 for x in _dear_to_bytes())
    found = graph_cut.min_cut(unary, pairwise)
    plain = graph_cut.min_cut(unary.astype(np.int32), pairwise.astype(np.int32))
    jax.tree.map(np.testing.assert_array_equal, found, plain)


@pytest.mark.parametrize("kind", ["int32", "uint32"])
def test_the_largest_integers_are_cut_right(kind):
    limits = np.iinfo(kind)
    rng = np.random.default_rng(1)
    unary = rng.integers(limits.min, limits.max, (3, 4, 2), endpoint=True)
    unary[0, 0], unary[1, 1] = [limits.min, limits.max], [limits.max, limits.min]
    for most in (2**20, 2**27 - 1):  # the sum of four is just below 2^29
        pairwise = rng.integers(most // 2, most, (2, 3, 4), endpoint=True)
        pairwise[:, 1, 1] = pairwise[0, 1, 0] = pairwise[1, 0, 1] = most
        cut = graph_cut.min_cut(unary.astype(kind), pairwise.astype(kind))
        assert bool(cut.optimal)
        assert _energy(cut.labels, unary, pairwise) == _brute_force(unary, pairwise)


def test_sums_of_capacities_that_are_too_large_are_refused_or_not_certified():
    unary = np.zeros((3, 3, 2), np.int32)
    for kind, most in (("int32", 2**27), ("int32", 2**31 - 1), ("uint32", 2**32 - 1)):
        pairwise = np.full((2, 3, 3), most, kind)
        with pytest.raises(InputError, match="pairwise: got a larger sum.*allowed: below 2.29"):
            graph_cut.min_cut(unary, pairwise)
        assert not bool(_min_cut(unary, pairwise).optimal)
    with pytest.raises(InputError, match="unary: got values of 0 to 4294967296; allowed: those of"):
        graph_cut.min_cut(unary.astype(np.int64) + [0, 2**32], np.zeros((2, 3, 3), int))


@pytest.mark.parametrize("factor", [1e-38, 1e-30, 1e30, 1e36])
def test_floats_of_any_size_are_cut_right(factor):
    unary, pairwise = _problem(3, 4, 4, 0)
    scaled = (np.float32(factor) * x.astype(np.float32) for x in (unary, pairwise))
    cut = _min_cut(*scaled)
    assert _energy(cut.labels, unary, pairwise) == _brute_force(unary, pairwise)


def test_an_infinite_edge_is_kept_beside_a_forbidden_label():
    unary, pairwise = (x.astype(np.float32) for x in _problem(3, 4, 4, 0))
    unary[1, 1], unary[2, 3], pairwise[0, 0, 0] = [np.inf, 0], [0, np.inf], np.inf
    cut = _min_cut(unary, pairwise)
    unary, pairwise = (np.minimum(x, 2.0**40) for x in (unary, pairwise))
    assert _energy(cut.labels, unary, pairwise) == _brute_force(unary, pairwise)


def test_costs_that_are_none_are_refused():
    unary, pairwise = (x.astype(np.float32) for x in _problem(3, 4, 4, 0))
    odd, holes = unary.copy(), pairwise.copy()
    odd[1, 1, 0] = holes[0, 1, 1] = np.nan
    for given, text in (
        ((odd, pairwise), "unary: got nan; allowed: numbers, infinite for a forbidden label"),
        ((unary, holes), "pairwise: got nan; allowed: numbers of 0 and more"),
        ((unary, pairwise - 30), "pairwise: got -.*; allowed: numbers of 0 and more"),
        ((unary * 1j, pairwise), "unary: got complex64; allowed: integers or floats"),
        ((unary[:0], pairwise[:, :0]), r"unary: got shape \(0, 4, 2\); allowed: .*at least 1"),
        ((unary[..., 0], pairwise), r"unary: got shape \(3, 4\); allowed: \[H, W, 2\]"),
        ((unary, pairwise[:1]), r"pairwise: got shape \(1, 3, 4\); allowed: \[2, 3, 4\] or"),
    ):
        with pytest.raises(InputError, match=text):
            graph_cut.min_cut(*given)
    outside = pairwise.copy()
    outside[0, :, -1] = np.nan  # these edges leave the image
    np.testing.assert_array_equal(
        graph_cut.min_cut(unary, outside).labels, graph_cut.min_cut(unary, pairwise).labels
    )
