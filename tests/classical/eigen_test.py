"""The eigensolver against scipy's dense one in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.classical import batches, eigen

linalg = pytest.importorskip("scipy.linalg")


def matrix(size: int, seed: int = 0) -> np.ndarray:
    """A symmetric matrix with eigenvalues 0 to 2, some of them close together."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(size, size)))
    values = np.sort(rng.random(size)) ** 2 * 2
    values[0] = 0
    return (turn * values) @ turn.T


def start(size: int, columns: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (size, columns))


def solve(a, x, **options):
    return eigen.smallest(lambda x: eigen.product(a, x), x, bound=2.0, **options)


def test_values_and_vectors_are_scipys():
    a = matrix(60)
    found, vectors = solve(jnp.float32(a), start(60, 8), wanted=5, rounds=30, tolerance=1e-5)
    values, expected = linalg.eigh(a)
    np.testing.assert_allclose(found[:5], values[:5], atol=1e-5)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-4)
    agreement = np.abs(expected[:, :5].T @ np.asarray(vectors[:, :5]))
    np.testing.assert_allclose(np.diag(agreement), 1, atol=1e-3)


def test_without_rounds_the_result_is_the_best_of_the_start():
    a = matrix(12)
    found, vectors = solve(jnp.float32(a), start(12, 3), wanted=1, rounds=0)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(np.diag(vectors.T @ a @ vectors), found, atol=1e-5)


def test_rounds_end_when_the_tolerance_is_met():
    a, x = jnp.float32(matrix(40)), start(40, 8)
    once = solve(a, x, wanted=2, rounds=1, tolerance=0)[0]
    np.testing.assert_array_equal(solve(a, x, wanted=2, rounds=50, tolerance=10.0)[0],
                                  solve(a, x, wanted=2, rounds=0)[0])  # fmt: skip
    assert np.all(once[:2] <= solve(a, x, wanted=2, rounds=0)[0][:2])


def test_dependent_columns_are_dropped_and_come_last():
    a = matrix(20)
    x = start(20, 6)
    x = x.at[:, 4:].set(x[:, :2])
    found, vectors = solve(jnp.float32(a), x, wanted=2, rounds=20)
    np.testing.assert_allclose(found[:2], linalg.eigvalsh(a)[:2], atol=1e-4)
    np.testing.assert_array_equal(vectors[:, 4:], 0)


def test_an_operator_of_zeros_is_solved():
    found, vectors = solve(jnp.zeros((5, 5)), start(5, 5), wanted=3, rounds=4)
    np.testing.assert_array_equal(found, 0)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-4)


def test_a_batch_gives_exactly_the_results_of_single_problems():
    batch = jnp.stack([jnp.float32(matrix(30, seed)) for seed in range(3)])
    single = functools.partial(
        batches.one_by_one, functools.partial(solve, wanted=3, rounds=6, tolerance=1e-4)
    )
    together = jax.jit(jax.vmap(single, (0, None)))(batch, start(30, 8))
    for index, a in enumerate(batch):
        for alone, batched in zip(jax.jit(single)(a, start(30, 8)), together, strict=True):
            np.testing.assert_array_equal(alone, batched[index])


@pytest.mark.parametrize(("count", "size", "expected"), [(8, 999, 16), (4, 999, 8), (3, 5, 5)])
def test_blocks_are_whole_registers_but_no_larger_than_the_problem(count, size, expected):
    assert eigen.block(count, size) == expected
