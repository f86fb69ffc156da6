"""Networks as graphs and arrays."""

import jax
import numpy as np
from flax import nnx

from segjax.models import functional


class Listed(nnx.Module):
    """Layers in a list, with statistics."""

    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs), nnx.BatchNorm(2, rngs=rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, 2] -> [B, 2]."""
        for layer in self.layers:
            x = layer(x)
        return x


def test_plain_names_are_strings_and_merge_gives_the_module_back():
    module = Listed(nnx.Rngs(0))
    _, params, batch_stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    params, batch_stats = functional.plain(params), functional.plain(batch_stats)
    assert set(params["layers"]) == {"0", "1"}
    assert set(batch_stats["layers"]) == {"1"}
    x = jax.random.normal(jax.random.key(0), (4, 2))
    merged = functional.merge(nnx.graphdef(module), params, batch_stats)
    np.testing.assert_array_equal(merged(x), module(x))


def test_keys_are_those_of_nnx():
    ours, theirs = functional.keys(7), nnx.Rngs(7)
    for draw in ("params", "params", "dropout", "params"):
        found, expected = (jax.random.key_data(getattr(rngs, draw)()) for rngs in (ours, theirs))
        np.testing.assert_array_equal(found, expected)


class Noisy(nnx.Module):
    """A norm, and a dropout of half."""

    def __init__(self, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """[B, 2] -> [B, 2]."""
        return self.dropout(self.norm(x), rngs=rngs)


def test_training_sees_the_batch_inference_its_averages_and_sampling_drops_only():
    graphs, arrays = functional.graphs(Noisy), functional.initial_arrays(Noisy, 0)
    x = jax.random.normal(jax.random.key(0), (64, 2)) * 3 + 1

    def run(graph, seed=0):
        return np.asarray(functional.merge(graph, *arrays)(x, rngs=nnx.Rngs(dropout=seed)))

    plain = np.asarray(x) / np.sqrt(1 + 1e-5)  # fresh averages: mean 0, variance 1
    np.testing.assert_allclose(run(graphs.inference), plain, rtol=1e-5)
    sampled = run(graphs.sampling)
    kept = sampled != 0
    assert 0.3 < kept.mean() < 0.7
    np.testing.assert_allclose(sampled[kept], 2 * plain[kept], rtol=1e-5)
    trained = run(graphs.training)
    assert ((trained != 0) == kept).all()
    assert np.abs(trained[kept] - sampled[kept]).min() > 1e-3
    assert (run(graphs.sampling, seed=1) != sampled).any()


def test_paths_name_the_leaves_of_several_trees():
    module = Listed(nnx.Rngs(0))
    _, params, batch_stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    paths = functional.by_path(functional.plain(params), functional.plain(batch_stats))
    assert set(paths) == {
        "layers/0/kernel", "layers/0/bias", "layers/1/scale", "layers/1/bias", "layers/1/mean",
        "layers/1/var",
    }  # fmt: skip
    np.testing.assert_array_equal(paths["layers/0/kernel"], module.layers[0].kernel[...])
