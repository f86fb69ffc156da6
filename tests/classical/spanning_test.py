import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.classical import spanning


def weights(count: int, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.exponential(20, count).clip(0, 500).astype(np.float32)
    return np.where(rng.random(count) < 0.2, np.round(values), values)  # some are equal


@pytest.mark.parametrize("count", [0, 1, 2, 5000])
def test_order_is_a_stable_argsort(count):
    values = weights(count)
    expected = np.argsort(values, kind="stable")
    np.testing.assert_array_equal(jax.jit(spanning.order)(values), expected)


def test_the_accelerators_form_sorts_like_the_cpus():
    keys = jnp.asarray(np.random.default_rng(1).integers(0, 1 << 28, 3000) // 3 * 3, jnp.int32)
    np.testing.assert_array_equal(spanning._sorted_order(keys), spanning._radix_order(keys))


def test_a_batch_is_ordered_like_single_rows():
    rows = np.stack([weights(300, seed) for seed in range(3)])
    for row, found in zip(rows, jax.vmap(spanning.order)(rows), strict=True):
        np.testing.assert_array_equal(found, np.argsort(row, kind="stable"))


def edges_of(planes):
    return jax.jit(spanning.grid_edges)(*(np.diff(planes, axis=axis) for axis in (2, 1)))


@pytest.mark.parametrize("shape", [(1, 4), (4, 5)])
def test_edges_of_the_grid_are_all_pairs_of_neighbours_in_order(shape):
    planes = np.random.default_rng(2).random((3, *shape)).astype(np.float32) * 255
    edges = edges_of(planes)
    pixels = [(y, x) for y in range(shape[0]) for x in range(shape[1])]
    expected = {}
    for i, (y, x) in enumerate(pixels):
        for j, (v, u) in enumerate(pixels[:i]):
            if max(abs(y - v), abs(x - u)) == 1:
                expected[j, i] = np.linalg.norm(planes[:, y, x] - planes[:, v, u])
    found = zip(*(np.asarray(end).tolist() for end in (edges.one, edges.other)), strict=True)
    found = [tuple(sorted(pair)) for pair in found]
    assert sorted(found) == sorted(expected)
    np.testing.assert_allclose(edges.weight, [expected[pair] for pair in found], rtol=1e-5)
    assert (np.diff(edges.weight) >= 0).all()


def test_roots_and_find_climb_a_long_chain():
    parent = jnp.asarray(np.maximum(np.arange(200) - 1, 0), jnp.int32).at[100].set(100)
    expected = np.where(np.arange(200) < 100, 0, 100)
    np.testing.assert_array_equal(spanning.roots(parent), expected)
    nodes = jnp.asarray([[0, 5], [99, 199]], jnp.int32)
    np.testing.assert_array_equal(spanning.find(parent, nodes), [[0, 0], [0, 100]])


def one_after_another(root, edges, min_size):
    root = np.array(root)
    for one, other in zip(np.asarray(edges.one), np.asarray(edges.other), strict=True):
        a, b = root[one], root[other]
        if a != b and min(np.sum(root == a), np.sum(root == b)) < min_size:
            root[root == max(a, b)] = min(a, b)
    return root


@pytest.mark.parametrize("min_size", [2, 9])
def test_absorbing_at_once_equals_absorbing_one_after_another(min_size):
    planes = jnp.asarray(np.random.default_rng(3).random((3, 9, 11)) * 255, jnp.float32)
    edges = edges_of(planes)
    # The initial components are runs of three pixels.
    root = jnp.asarray(np.arange(99) // 3 * 3, jnp.int32)
    found = np.asarray(jax.jit(spanning.absorb, static_argnums=2)(root, edges, min_size))
    expected = one_after_another(root, edges, min_size)
    assert len(np.unique(found)) == len(np.unique(expected))
    pairs = np.unique(np.stack([found, expected]), axis=1)
    assert pairs.shape[1] == len(np.unique(expected))
