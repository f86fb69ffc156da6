import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import sharding
from segjax.errors import InputError
from segjax.models import norms

X = np.random.default_rng(0).normal(1, 2, (3, 4, 5, 8)).astype(np.float32)


def make(features: int = 8, **norm) -> nnx.Module:
    return norms.make(norm, features, dtype=None, rngs=nnx.Rngs(params=0))


def test_a_frozen_norm_applies_four_fixed_vectors_and_has_no_parameters():
    norm = make(name="frozen", epsilon=0.5)
    rng = np.random.default_rng(1)
    scale, bias, mean, var = (rng.uniform(0.5, 2, 8).astype(np.float32) for _ in range(4))
    norm.scale[...], norm.bias[...], norm.mean[...], norm.var[...] = scale, bias, mean, var
    expected = (X - mean) / np.sqrt(var + 0.5) * scale + bias
    np.testing.assert_allclose(norm(X), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(norm.mean[...], mean)
    assert not jax.tree.leaves(nnx.state(norm, nnx.Param))
    assert len(jax.tree.leaves(nnx.state(norm, nnx.BatchStat))) == 4


def test_a_frozen_norm_equals_a_batch_norm_in_evaluation_with_the_same_names():
    frozen, batch = make(name="frozen"), make(name="batch")
    names = [{path for path, _ in nnx.to_flat_state(nnx.state(n))} for n in (frozen, batch)]
    assert names[0] == names[1]
    batch.eval()
    np.testing.assert_allclose(frozen(X), batch(X), rtol=1e-5)


def test_a_frozen_norm_that_trains_has_scale_and_bias_as_parameters():
    norm, bare = make(name="frozen", trains=True), make(name="frozen")
    params, batch_stats = (nnx.to_pure_dict(nnx.state(norm, k)) for k in (nnx.Param, nnx.BatchStat))
    assert params.keys() == {"scale", "bias"}
    assert batch_stats.keys() == {"mean", "var"}
    np.testing.assert_array_equal(norm(X), bare(X))


def test_a_frozen_norm_keeps_the_type_of_the_computation():
    norm = norms.make({"name": "frozen"}, 8, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert norm(jnp.asarray(X, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(("features", "groups"), [(64, 32), (8, 8), (12, 4), (7, 1)])
def test_the_number_of_groups_divides_the_channels(features, groups):
    x = np.random.default_rng(0).normal(3, 2, (2, 3, 4, features))
    parts = x.reshape(2, 12, groups, -1)
    mean, var = (f(parts, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    expected = ((parts - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    got = make(features, name="group")(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, expected, atol=2e-4)


def test_momentum_and_epsilon_can_be_set():
    norm = make(name="batch", momentum=0.75, epsilon=0.5)
    got = norm(X)
    mean, var = X.mean((0, 1, 2)), X.var((0, 1, 2))
    unbiased = X.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(got, (X - mean) / np.sqrt(var + 0.5), atol=1e-4)
    np.testing.assert_allclose(norm.mean[...], 0.25 * mean, rtol=1e-4)
    np.testing.assert_allclose(norm.var[...], 0.75 + 0.25 * unbiased, rtol=1e-4)


def test_statistics_are_updated_without_reading_the_traced_program(monkeypatch):
    """Reading `sharding` of a traced value would search the program."""
    monkeypatch.setattr(
        jax.core.Tracer, "sharding", property(lambda self: pytest.fail("sharding was read"))
    )

    graph, arrays = nnx.split(make(name="batch"))

    @jax.jit
    def updated(arrays, x):
        norm = nnx.merge(graph, arrays)
        norm(x)
        return norm.mean[...], norm.var[...]

    mean, var = updated(arrays, X)
    np.testing.assert_allclose(mean, 0.1 * X.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(var, 0.9 + 0.1 * X.var((0, 1, 2), ddof=1), rtol=1e-4)


def test_batch_norm_of_one_value_is_refused_in_training_alone_with_what_to_do():
    norm, one = make(name="batch"), X[:1, :1, :1]
    with pytest.raises(InputError, match=r"one value a channel .*batch_size.*frozen.*group"):
        norm(one)
    norm(X[:1, :1, :2])
    norm.eval()
    assert norm(one).shape == one.shape
    for name in ("frozen", "group"):
        assert make(name=name)(one).shape == one.shape


@pytest.mark.parametrize("size", [(2, 1, 1, 8), (1, 1, 3, 8), (8, 1, 1, 8)])
def test_the_running_variance_is_that_of_the_population(size):
    """Of few values, 1 / n would be half of it at 2: PSPNet's first bin, DeepLab's image branch."""
    norm, rng, seen = make(name="batch", momentum=0.0), np.random.default_rng(3), []
    for _ in range(400):
        x = rng.normal(5, 2, size).astype(np.float32)
        norm(x)
        np.testing.assert_allclose(norm.var[...], x.var((0, 1, 2), ddof=1), rtol=1e-5)
        seen.append(np.asarray(norm.var[...]))
    assert np.mean(seen) == pytest.approx(4, rel=0.1)


def test_the_running_variance_counts_the_values_of_all_devices():
    place = sharding.batch_sharding(sharding.make_mesh(1, jax.devices()[:4]), "image")
    graph, arrays = nnx.split(make(name="batch", momentum=0.0))
    x = X[:2].repeat(2, axis=0)[:, :1, :1]

    @jax.jit
    def after(x):
        norm = nnx.merge(graph, nnx.as_pure(arrays))
        norm(x)
        return nnx.as_pure(nnx.state(norm, nnx.BatchStat))["var"]

    expected = x.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(after(jax.device_put(x, place)), expected, rtol=1e-5)


def test_evaluation_in_bfloat16_keeps_the_digits_of_the_statistics():
    """A mean of 100.3 is 100.5 in bfloat16: half a deviation off."""
    x = jnp.asarray(100 + X, jnp.bfloat16)
    norm = norms.make({"name": "batch"}, 8, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    norm.mean[...], norm.var[...] = jnp.full(8, 100.3), jnp.full(8, 0.25)
    norm.eval()
    wide = (np.asarray(x, np.float64) - 100.3) / np.sqrt(0.25 + 1e-5)
    got = norm(x)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(got, np.float64), wide, rtol=4e-3, atol=1e-3)


def test_no_norm_is_no_layer():
    assert make(name="none") is None


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (
            {"name": "batchnorm"},
            r"config.model.\*.norm.name: unknown 'batchnorm'; known: batch, frozen, group, none",
        ),
        ({}, "norm.name: unknown None; known: batch"),
        ({"name": "group", "momentum": 0.9}, "norm: group takes no 'momentum'; options: groups, e"),
        ({"name": "none", "epsilon": 1.0}, "norm: none takes no 'epsilon'; options: none"),
        ({"name": "batch", "momentun": 0.9}, 'batch takes no .*Did you mean "momentum"'),
        ({"name": "batch", "dtype": "float32"}, "takes no 'dtype'; options: momentum, epsilon"),
    ],
)
def test_an_unknown_name_or_option_is_refused(norm, message):
    with pytest.raises(InputError, match=message):
        make(**norm)
