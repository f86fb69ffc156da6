"""The derivative of batch normalisation, beside that of the formulas in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import batch_norm

EPSILON = 1e-3


def drawn(seed: int, shape: tuple[int, ...] = (3, 4, 5, 6), ratio: float = 2.0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(ratio, 1, shape),
        rng.normal(1, 0.5, shape[-1]),  # scales of either sign
        rng.normal(0, 0.5, shape[-1]),
        rng.normal(0, 1, shape),
    )


def formulas(x, scale, bias, relu: bool):
    mean, var = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    y = (x - mean) / jnp.sqrt(var + EPSILON) * scale + bias
    return jax.nn.relu(y) if relu else y


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("ratio", [0.0, 2.0, 100.0])
def test_the_derivative_is_that_of_the_formulas_in_float64(relu, ratio):
    x, scale, bias, cotangent = drawn(0, ratio=ratio)
    with jax.enable_x64(True):
        expected, pull = jax.vjp(functools.partial(formulas, relu=relu), x, scale, bias)
        gradients = pull(cotangent)
    narrow = [a.astype(np.float32) for a in (x, scale, bias)]
    got, found = jax.vjp(
        lambda *given: batch_norm.normalised(*given, EPSILON, relu, jnp.float32)[0], *narrow
    )
    np.testing.assert_allclose(got, expected, atol=1e-5 * (1 + ratio))
    for a, b in zip(found(cotangent.astype(np.float32)), gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * (1 + ratio), rtol=1e-4)


def test_what_the_relu_stopped_passes_nothing_on():
    """Of a channel that it stopped altogether the gradients are zero, whatever comes back."""
    x, scale, bias, cotangent = (jnp.asarray(a, jnp.float32) for a in drawn(1))
    bias = bias.at[2].set(-100.0)
    _, pull = jax.vjp(
        lambda *given: batch_norm.normalised(*given, EPSILON, True, jnp.float32)[0], x, scale, bias
    )
    for gradient in pull(cotangent):
        assert not np.any(gradient[..., 2])
        assert np.any(gradient[..., 3])


def test_bfloat16_maps_have_statistics_of_float32_and_gradients_of_their_own_type():
    x, scale, bias, cotangent = (jnp.asarray(a, jnp.float32) for a in drawn(2))
    short = x.astype(jnp.bfloat16)
    (y, mean, var), pull = jax.vjp(
        lambda x: batch_norm.normalised(x, scale, bias, EPSILON, True, jnp.bfloat16), short
    )
    assert (y.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    np.testing.assert_allclose(mean, np.mean(np.asarray(short, np.float64), (0, 1, 2)), atol=1e-5)
    zero = jnp.zeros_like(mean)
    (gradient,) = pull((cotangent.astype(jnp.bfloat16), zero, zero))
    assert gradient.dtype == jnp.bfloat16
    wide = jax.vjp(functools.partial(formulas, scale=scale, bias=bias, relu=True), x)[1]
    np.testing.assert_allclose(gradient, wide(cotangent)[0], atol=0.05)
