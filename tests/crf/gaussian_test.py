import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.crf import gaussian
from tests.crf import made

SIZE = (6, 9)


def run(mask, values, theta, reach=None):
    return gaussian.apply(gaussian.build(mask, theta, reach), values)


def drawn(size=SIZE, channels: int = 2) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(size[0] * size[1], channels))
    return values.astype(np.float32)


@pytest.mark.parametrize(
    ("size", "theta"), [(SIZE, 1.5), (SIZE, 0.3), (SIZE, 50.0), ((1, 1), 3.0), ((1, 8), 0.7)]
)
def test_it_is_the_sum_over_all_pixels(size, theta):
    values = drawn(size)
    expected = made.kernel(made.places(size) / theta) @ values
    found = run(jnp.ones(size), values, theta)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_a_reach_cuts_it_off_along_each_axis():
    apart = np.abs(made.places(SIZE)[:, :, None] - made.places(SIZE)[:, None, :])
    expected = np.where((apart <= 2).all(0), made.kernel(made.places(SIZE) / 1.5), 0) @ drawn()
    np.testing.assert_allclose(run(jnp.ones(SIZE), drawn(), 1.5, 2), expected, rtol=1e-5, atol=1e-5)


def test_the_reach_is_five_deviations_rounded_up_or_the_image():
    assert gaussian.build(jnp.ones((80, 3)), 1.5).taps.shape == (2 * 8 + 1,)
    assert gaussian.build(jnp.ones((5, 8)), 1.5).taps.shape == (2 * 7 + 1,)
    assert gaussian.build(jnp.ones((5, 8)), 1.5, 3).taps.shape == (2 * 3 + 1,)


def test_masked_pixels_have_no_effect():
    there = np.random.default_rng(1).random(SIZE) < 0.6
    keep = there.ravel()
    expected = made.kernel(made.places(SIZE)[:, keep] / 2) @ drawn()[keep]
    found = np.asarray(run(jnp.asarray(there, jnp.float32), drawn(), 2.0))
    np.testing.assert_allclose(found[keep], expected, rtol=2e-5, atol=2e-5)
    assert not found[~keep].any()


def test_its_gradients_are_finite_differences():
    with jax.enable_x64(True):
        toward = drawn()[:, ::-1]
        at = {"theta": np.array(1.3), "values": drawn().astype(np.float64)}

        @jax.jit
        def loss(theta, values):
            return jnp.vdot(toward, run(jnp.ones(SIZE), values, theta, 4))

        gradients = jax.jit(jax.grad(lambda at: loss(**at)))(at)
        assert made.along(gradients) == pytest.approx(made.slopes(loss, at), rel=1e-6)
