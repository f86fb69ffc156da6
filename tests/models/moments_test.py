"""Means and variances where the mean is large, beside float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import sharding
from segjax.models import norms
from segjax.models.moments import moments

RATIOS = (0, 100, 1000)  # of |mean| to the deviation
SIZES = ((4, 12, 16, 6), (2, 1, 1, 6), (1, 1, 7, 6), (3, 5, 1, 6))
EPSILON = 1e-5


def drawn(ratio: float, size=SIZES[0], dtype=np.float32) -> np.ndarray:
    """Channels of deviations from 0.5 to 4, each with its mean above or below zero."""
    deviation = np.linspace(0.5, 4, size[-1])
    mean = ratio * deviation * (-1) ** np.arange(size[-1])
    return np.random.default_rng(ratio).normal(mean, deviation, size).astype(dtype)


def normalised(x, axes):
    """In float64: the result, and the gradient of sum(result * g) as a function of g."""
    x = np.asarray(x, np.float64)
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    scale = 1 / np.sqrt(var + EPSILON)
    y = (x - mean) * scale

    def back(g):
        mean_of = [np.mean(v, axes, keepdims=True) for v in (g, g * y)]
        return scale * (g - mean_of[0] - y * mean_of[1])

    return y, back


def run(name: str, x, g, *, warm=False, **options):
    """The result, the gradient and the batch statistics of a new norm of this name in training."""
    norm = norms.make({"name": name, **options}, x.shape[-1], dtype=None, rngs=nnx.Rngs(0))
    if warm:
        norm.mean[...] = jnp.asarray(np.asarray(x, np.float64).mean((0, 1, 2)), jnp.float32)
    graph, arrays = nnx.split(norm)

    @jax.jit
    @jax.value_and_grad
    def loss(x):
        return jnp.sum(nnx.merge(graph, nnx.as_pure(arrays))(x) * g)

    return norm(x), loss(x)[1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ratio", [*RATIOS, 10_000])
def test_the_moments_are_those_of_float64(ratio, size):
    x = drawn(ratio, size)
    mean, var = jax.jit(moments, static_argnums=(1, 2))(x, (0, 1, 2), 2)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean.ravel(), wide.mean((0, 1, 2)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(var.ravel(), wide.var((0, 1, 2)), rtol=2e-6)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("ratio", RATIOS)
def test_batch_norm_and_its_gradient_are_those_of_float64(ratio, warm):
    x = drawn(ratio)
    g = np.random.default_rng(1).normal(0, 1, x.shape).astype(np.float32)
    expected, back = normalised(x, (0, 1, 2))
    got, slope = run("batch", x, g, warm=warm)
    # The mean itself is a float32: half its last digit is 3e-5 deviations at a ratio of 1000.
    np.testing.assert_allclose(got, expected, atol=2e-6 + 1e-7 * ratio)
    np.testing.assert_allclose(slope, back(g), atol=3e-6 * np.abs(back(g)).max())


@pytest.mark.parametrize("ratio", RATIOS)
def test_group_norm_and_its_gradient_are_those_of_float64(ratio):
    x = np.concatenate([drawn(ratio), drawn(ratio + 1)], axis=-1)
    x = np.abs(x)  # channels of a group share their mean
    g = np.random.default_rng(1).normal(0, 1, x.shape).astype(np.float32)
    parts = (*x.shape[:3], 12, 1)
    expected, back = normalised(x.reshape(parts), (1, 2, 4))
    got, slope = run("group", x, g, groups=12)
    np.testing.assert_allclose(got, expected.reshape(x.shape), atol=2e-6 + 1e-7 * ratio)
    back = back(g.reshape(parts).astype(np.float64)).reshape(x.shape)
    np.testing.assert_allclose(slope, back, atol=3e-6 * np.abs(back).max())


@pytest.mark.parametrize("ratio", RATIOS)
def test_bfloat16_activations_are_averaged_in_float32(ratio):
    x = jnp.asarray(drawn(ratio), jnp.bfloat16)
    expected, _ = normalised(x, (0, 1, 2))
    norm = norms.make({"name": "batch"}, 6, dtype=jnp.float32, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(norm(x), expected, atol=2e-6 + 1e-7 * ratio)


def test_moments_have_second_derivatives_and_forward_ones():
    x = drawn(3, (2, 2, 3, 1))
    step = np.random.default_rng(2).normal(0, 1, x.shape).astype(np.float32)

    def of(formula):
        def loss(x):
            mean, var = formula(x)
            return jnp.sum(mean**3 + mean * var**2)

        return jax.jvp(jax.grad(loss), (x,), (step,))

    plain = of(lambda x: (jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))))
    for got, expected in zip(of(lambda x: moments(x, (0, 1, 2), 2)), plain, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_a_batch_over_devices_costs_one_more_sum_per_channel_and_moves_no_activations():
    """Beside the two sums of E[x^2] - E[x]^2."""

    def collectives(space: int, normalise) -> list[str]:
        mesh = sharding.make_mesh(space, jax.devices()[:8])
        place = sharding.batch_sharding(mesh, "image")
        x = jax.ShapeDtypeStruct((8, 16, 16, 6), jnp.float32, sharding=place)
        text = jax.jit(normalise).lower(x).compile().as_text()
        kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
        return re.findall(rf"= (.*?) (?:{kinds})(?:-start)?\(", text)

    for space in (1, 2):
        norm = norms.make({"name": "batch"}, 6, dtype=None, rngs=nnx.Rngs(0))
        graph, arrays = nnx.split(norm)

        def ours(x, graph=graph, arrays=arrays):
            return nnx.merge(graph, nnx.as_pure(arrays))(x)

        def flax(x, graph=graph, arrays=arrays):
            return nnx.BatchNorm.__call__(nnx.merge(graph, nnx.as_pure(arrays)), x)

        found, before = ("".join(collectives(space, f)).count("f32[6]") for f in (ours, flax))
        assert found <= before + (1 if space == 1 else 2)
        assert "f32[8," not in "".join(collectives(space, ours))


def test_a_batch_over_devices_is_normalised_as_on_one():
    x = drawn(1000, (8, 16, 16, 6))
    g = np.random.default_rng(1).normal(0, 1, x.shape).astype(np.float32)
    place = sharding.batch_sharding(sharding.make_mesh(2, jax.devices()[:8]), "image")
    one, many = run("batch", x, g), run("batch", jax.device_put(x, place), g)
    for got, expected in zip(many, one, strict=True):
        np.testing.assert_allclose(got, expected, atol=1.3e-4)
