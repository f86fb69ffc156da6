import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.crf import permutohedral
from tests.crf import made

N, SPREAD = 120, {1: 3.0, 2: 2.0, 3: 1.2, 5: 0.6}
_build = jax.jit(permutohedral.build, static_argnames="capacity")
_apply = jax.jit(permutohedral.apply, static_argnames="transpose")


def points(d: int) -> np.ndarray:
    """Points that are dense enough to have neighbours: float32 [d, N]."""
    return (np.random.default_rng(d).normal(0, SPREAD[d], (d, N))).astype(np.float32)


def channels(seed: int = 0, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)


@functools.cache
def lattice(d: int) -> permutohedral.Lattice:
    return _build(points(d), capacity=N * (d + 1))


@pytest.mark.parametrize("d", SPREAD)
def test_it_equals_a_lattice_in_a_dictionary(d):
    by_dictionary, values = made.Lattice(points(d)), channels()
    assert int(lattice(d).needed) == len(by_dictionary.vertices)
    for transpose in (False, True):
        expected = by_dictionary(values, transpose)
        found = _apply(lattice(d), values, transpose=transpose)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    if d > 1:  # the two directions differ
        assert np.abs(by_dictionary(values) - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize(("d", "far"), [(2, 2**15 - 17), (3, 2**15 - 20), (3, 2**14)])
def test_points_at_the_limits_of_16_bits_are_filtered(d, far):
    """In float64: float32 is too coarse for simplices so far out."""
    with jax.enable_x64(True):
        # Two clusters, whose second coordinates are as far apart as 15 bits allow, or half of it.
        elevate = np.asarray(permutohedral._elevate(jnp.eye(d)))
        out = np.zeros((d + 1, 1))
        out[1], out[-1] = far, -far
        sides = np.where(np.arange(N) % 2, 1, -1) * (np.linalg.pinv(elevate) @ out)
        features = np.clip(points(d), -1, 1).repeat(2, axis=1)[:, :N] + sides
        found = _build(features, capacity=N * (d + 1))
        expected = made.Lattice(features)
        assert int(found.needed) == len(expected.vertices)
        values = channels().astype(np.float64)
        np.testing.assert_allclose(_apply(found, values), expected(values), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("d", SPREAD)
def test_a_point_lies_between_its_corners(d):
    weights, corners = np.asarray(lattice(d).weights), np.asarray(lattice(d).corners)
    assert weights.min() >= -1e-6
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-6)
    assert all(len(set(of_point)) == d + 1 for of_point in corners.T)


@pytest.mark.parametrize("d", [2, 5])
def test_weighted_means_are_nearly_those_of_the_gaussian(d):
    image = made.photo((24, 20))
    features = made.pixels(image, 8, 20) if d == 5 else made.places((24, 20)) / 3
    values = image.reshape(-1, 3) / 50 + channels(n=24 * 20)
    exact = made.normalized(made.kernel(features), "after") @ values
    found = _build(features.astype(np.float32), capacity=len(values) * (d + 1))
    sums = _apply(found, np.pad(values, ((0, 0), (0, 1)), constant_values=1).astype(np.float32))
    means = np.asarray(sums[:, :-1] / sums[:, -1:])
    for mean, expected, value in zip(means.T, exact.T, values.T, strict=True):
        assert np.corrcoef(mean, expected)[0, 1] > 0.99
        assert np.abs(mean - expected).mean() < 0.12 * expected.std()
        assert np.corrcoef(value, expected)[0, 1] < 0.9  # the values before the filter


def test_transpose_is_the_adjoint_and_the_gradient_by_values():
    with jax.enable_x64(True):
        found = _build(points(3).astype(np.float64), capacity=N * 4)
        x, y = (channels(seed).astype(np.float64) for seed in (1, 2))
        there, back = _apply(found, x), _apply(found, y, transpose=True)
        assert jnp.vdot(y, there) == pytest.approx(float(jnp.vdot(back, x)), rel=1e-13)
        assert np.abs(back - _apply(found, y)).max() > 1e-3  # it is not symmetric
        for transpose in (False, True):
            pull = jax.jit(
                lambda y, t=transpose: jax.vjp(lambda x: _apply(found, x, transpose=t), x)[1](y)[0]
            )
            expected = _apply(found, y, transpose=not transpose)
            np.testing.assert_allclose(pull(y), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("transpose", [False, True])
def test_gradients_by_features_and_by_values_are_finite_differences(transpose):
    with jax.enable_x64(True):
        at = {"features": points(5).astype(np.float64), "values": channels(1).astype(np.float64)}
        toward = channels(2).astype(np.float64)

        @jax.jit
        def loss(features, values):
            built = permutohedral.build(features, N * 6)
            return jnp.vdot(toward, permutohedral.apply(built, values, transpose))

        gradients = jax.jit(jax.grad(lambda at: loss(**at)))(at)
        assert made.along(gradients) == pytest.approx(made.slopes(loss, at), rel=1e-6)


def test_a_vmap_over_lattices_gives_the_results_of_each_alone():
    features = np.stack([points(2), 2 * points(2), points(2)[::-1]])
    values = np.stack([channels(seed) for seed in range(3)])

    @jax.jit
    @jax.vmap
    def run(features, values):
        built = permutohedral.build(features, N * 3)
        return permutohedral.apply(built, values), built.needed

    for row, needed, *given in zip(*run(features, values), features, values, strict=True):
        alone = _build(given[0], capacity=N * 3)
        assert needed == alone.needed
        np.testing.assert_allclose(row, _apply(alone, given[1]), rtol=1e-5, atol=1e-5)


def test_without_room_the_result_is_nan_with_the_capacity_that_is_needed():
    needed = int(lattice(2).needed)
    for capacity in (1, needed - 1):
        short = _build(points(2), capacity=capacity)
        assert int(short.needed) == needed
        assert np.isnan(_apply(short, channels())).all()
    exactly = _build(points(2), capacity=needed)
    assert exactly.capacity == int(exactly.needed) == needed
    np.testing.assert_array_equal(_apply(exactly, channels()), _apply(lattice(2), channels()))


@pytest.mark.parametrize("far", [3e4, -3e4, np.inf, np.nan])
def test_points_too_far_out_for_16_bits_have_no_capacity(far):
    many = np.random.default_rng(0).normal(size=(5, 1000)).astype(np.float32)
    many[2:, 7] = far
    found = _build(many, capacity=6000)
    assert int(found.needed) == permutohedral.OUT_OF_RANGE
    assert np.isnan(_apply(found, channels(n=1000))).all()
    masked = _build(many, capacity=6000, mask=np.arange(1000) != 7)
    assert np.isfinite(_apply(masked, channels(n=1000))).all()


def test_masked_points_have_no_effect():
    there = np.random.default_rng(5).random(N) < 0.6
    masked = _build(points(3), capacity=N * 4, mask=there)
    expected = made.Lattice(points(3)[:, there])
    assert int(masked.needed) == len(expected.vertices)
    found = np.asarray(_apply(masked, channels()))
    np.testing.assert_allclose(found[there], expected(channels()[there]), rtol=1e-5, atol=1e-5)
    assert not found[~there].any()


def test_a_mask_of_no_points_has_no_vertices():
    nothing = _build(points(3), capacity=N * 4, mask=np.zeros(N, bool))
    assert int(nothing.needed) == 0
    assert not np.asarray(_apply(nothing, channels())).any()
