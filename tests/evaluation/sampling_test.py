"""Passes with dropout left on, and statistics of norms that are estimated again."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import predict, sharding
from segjax.data import catalog
from segjax.errors import InputError
from segjax.evaluation import evaluator as evaluation
from segjax.evaluation import steps
from segjax.evaluation.protocol import parse
from segjax.models import functional, resize
from segjax.training import assembly, norm_statistics
from tests import programs, tiny

SAMPLES = 3


def assembled(devices: int = 1, **trunk):
    backbone = {"name": "tests.tiny:Trunk", "batch_norm": True, "dropout": 0.5} | trunk
    return tiny.assemble(tiny.config(model__backbone=backbone), devices)


@pytest.fixture(scope="module")
def network():
    """Parts, weights, and what one step of SAMPLES passes finds in a batch of 4."""
    parts = assembled()
    ts = tiny.awake_state(parts)
    batch = tiny.batch(0, rows=4)
    found = parts.step_under(SAMPLES)(ts.params, ts.batch_stats, batch)
    return parts, ts, batch, jax.device_get(found)


def test_moments_are_those_of_the_softmax_over_passes():
    logits = np.random.default_rng(0).normal(0, 2, (2 * 5, 3, 4, 6)).astype(np.float32)
    log_mean, variance = steps.moments(jnp.asarray(logits), 2)
    wide = logits.astype(np.float64).reshape(2, 5, 3, 4, 6)
    p = np.exp(wide) / np.exp(wide).sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(log_mean), p.mean(1), rtol=1e-5)
    np.testing.assert_allclose(variance, p.var(1).mean(-1), rtol=1e-4)


def test_passes_are_those_of_the_network_with_dropout_and_running_averages(network):
    """One image, one pass after the other, through a model of its own; softmax in float64."""
    parts, ts, batch, found = network
    training, _ = functional.graphs(parts.build)
    for row in (0, 2):
        key = jax.random.fold_in(jax.random.key(parts.config.seed), batch["index"][row])
        passes = []
        for once in jax.random.split(key, SAMPLES):
            model = functional.merge(training, ts.params, ts.batch_stats)
            for _, module in nnx.iter_modules(model):
                if isinstance(module, nnx.BatchNorm):
                    module.use_running_average = True
            image = parts.preprocess(batch["image"][row : row + 1])
            scores = model(image, rngs=nnx.Rngs(dropout=once))[0]
            logits = resize.apply(scores.values, *scores.matrices(tiny.SIZE))[0]
            passes.append(jax.nn.softmax(np.asarray(logits, np.float64)))
        assert np.abs(passes[0] - passes[1]).max() > 1e-3  # dropout does something
        mean, variance = np.mean(passes, 0), np.var(passes, 0).mean(-1)
        np.testing.assert_allclose(found["uncertainty"][row], variance, rtol=1e-3, atol=1e-7)
        top = np.sort(mean, -1)
        clear = top[..., -1] - top[..., -2] > 1e-5
        np.testing.assert_array_equal(found["prediction"][row][clear], mean.argmax(-1)[clear])
        valid = batch["label"][row] != tiny.VOID
        hits = (found["prediction"][row] == batch["label"][row]) & valid
        assert np.trace(found["confusion"][row]) == hits.sum()


def test_an_images_passes_do_not_depend_on_its_batch_or_on_the_devices(network):
    parts, ts, batch, found = network
    order = np.array([2, 0])
    part = {key: value[order] for key, value in batch.items()}
    again = parts.step_under(SAMPLES)(ts.params, ts.batch_stats, part)
    # A variance of numbers up to 1, in float32: to 1e-7 of their square.
    expected = found["uncertainty"][order]
    np.testing.assert_allclose(again["uncertainty"], expected, rtol=1e-5, atol=1e-7)
    many = assembled(devices=4)
    ts = tiny.awake_state(many)
    placed = sharding.put_batch(many.mesh, batch)
    spread = many.step_under(SAMPLES)(ts.params, ts.batch_stats, placed)
    np.testing.assert_allclose(spread["uncertainty"], found["uncertainty"], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(spread["prediction"], found["prediction"])


def test_what_comes_before_the_first_dropout_is_computed_once(network):
    """The first convolution sees B images, not B N."""
    parts, ts, batch, _ = network
    graph = functional.sampling_graph(parts.build)
    sampled = functools.partial(
        steps.sampled, graph=graph, preprocess=parts.preprocess, samples=SAMPLES, seed=0
    )
    text = str(jax.make_jaxpr(sampled)(ts.params, ts.batch_stats, batch["image"], batch["index"]))
    (first, *_) = [line for line in text.splitlines() if "conv_general_dilated[" in line]
    assert "[4,1,4,6,6]" in first or "[4,4,6,6]" in first, first


def test_a_network_without_dropout_and_views_with_samples_are_refused():
    parts = assembled(dropout=0.0)
    ts = parts.initial_state()
    with pytest.raises(InputError, match="no dropout"):
        parts.step_under(2)(ts.params, ts.batch_stats, tiny.batch(0))
    with pytest.raises(InputError, match="samples.*one look"):
        parse("single, samples=2, flip=True")
    with pytest.raises(InputError, match="samples.*whole number"):
        parse("single, samples=1.5")
    assert parse("bayesian_segnet").samples == 8
    assert parse("bayesian_segnet").plain


@pytest.fixture(scope="module")
def on_scenes():
    """Parts, weights and a validation split of scenes of 48 x 64."""
    backbone = {"name": "tests.tiny:Trunk", "batch_norm": True, "dropout": 0.5}
    made = programs.config(model__backbone=backbone, eval__limit=6, eval__batch_size=4)
    dataset = catalog.load(**made.data)
    parts = assembly.assemble(made, dataset.spec, None, jax.devices()[:2])
    return parts, tiny.awake_state(parts), assembly.open_split(dataset, made, "val")


def test_an_evaluation_of_samples_keeps_the_uncertainty_of_its_panel(on_scenes, tmp_path):
    parts, ts, split = on_scenes
    how = evaluation.protocol(parts, "val", split.scan.sizes, "single, samples=2")
    assert how["views"]["samples"] == 2
    evaluator = evaluation.Evaluator(parts, split.source, split.scan.sizes, how, details=True)
    result = evaluator(ts.params, ts.batch_stats)
    assert len(result.maps["uncertainty"]) == len(result.panel) == parts.config.eval.pictures
    for (image, _, _), variance in zip(result.panel, result.maps["uncertainty"], strict=True):
        assert variance.shape == image.shape[:2]
        assert 0 < variance.max() <= 0.25

    predict.write_labels(parts, ts, how, split.source, split.scan.sizes[:3], tmp_path)
    names = [split.source.name(i) for i in range(3)]
    for name in names:
        variance = np.load(tmp_path / f"{name}_uncertainty.npy")
        picture = cv2.imread(str(tmp_path / f"{name}_uncertainty.png"))
        assert variance.dtype == np.float32
        assert picture.shape == (*variance.shape, 3)
        brightest = picture.sum(-1).argmax()
        assert variance.flat[brightest] > 0.95 * variance.max()
    assert len(list(tmp_path.iterdir())) == 4 * 3


def test_statistics_of_a_batch_are_what_training_finds_in_it():
    """A training step keeps 0.9 of the old ones: what it adds is a tenth of the batch's."""
    parts = assembled(dropout=0.0)
    ts, batch = tiny.awake_state(parts), tiny.batch(3)
    old = jax.device_get(ts.batch_stats)
    found = parts.batch_statistics(ts.params, ts.batch_stats, batch)
    after, _ = parts.train_step(ts, batch)
    expected = jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, after.batch_stats, old)
    tiny.assert_close(found, expected, 1e-5)
    assert np.abs(tiny.by_name(found)["backbone/norm/mean"]).max() > 0.01
    bare = assembled(batch_norm=False)
    fresh = bare.initial_state()
    with pytest.raises(InputError, match="no batch norm"):
        bare.batch_statistics(fresh.params, fresh.batch_stats, batch)


def test_one_pass_over_the_split_is_averaged(on_scenes, monkeypatch):
    parts, ts, split = on_scenes
    monkeypatch.setattr(norm_statistics, "batches_of", lambda *_: 3)
    seen = []
    found = norm_statistics.estimate(parts, ts.params, ts.batch_stats, split, progress=seen.append)
    assert seen == [1, 2, 3]
    stream = assembly.train_batches(parts, split, first_step=0)
    each = [
        parts.batch_statistics(
            ts.params, ts.batch_stats, sharding.put_batch(parts.mesh, next(stream))
        )
        for _ in range(3)
    ]
    expected = jax.tree.map(lambda *x: np.mean(np.asarray(x, np.float64), 0), *each)
    tiny.assert_close(found, expected, 1e-6)


def test_a_pass_holds_every_image_once():
    class Split:
        source = range(17)

    class Parts:
        config = tiny.config(batch_size=8)

    assert norm_statistics.batches_of(Parts, Split) == 3
    Split.source = range(10**6)
    assert norm_statistics.batches_of(Parts, Split) == norm_statistics.MOST
