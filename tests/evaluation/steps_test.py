"""The evaluation step, against what numpy and OpenCV make of the network's scores."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import crf as crfs
from segjax import metrics, sharding
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.evaluation import steps
from segjax.models import functional, resize, row_blocks
from segjax.models.features import Scores
from segjax.models.resize import Resize
from segjax.network import Network
from segjax.training import assembly
from tests import tiny
from tests.metrics import made as counted

SAMPLES = 3


@pytest.fixture(scope="module")
def short():
    """The short network without batch norm or dropout: fn(**config) -> training."""

    @functools.cache
    def assemble(**changes):
        return tiny.assemble(tiny.short_config(**changes))

    return assemble


def logits_of(training: assembly.Training, image: np.ndarray) -> np.ndarray:
    """The scores of the awake network, brought to the network's input with OpenCV."""
    network, preprocess = tiny.network(training), training.model.preprocess
    image = (image - np.array(preprocess.mean)) / np.array(preprocess.std)

    @jax.jit
    def scores(network, x):
        graph = network.model.graphs.inference
        return functional.merge(graph, network.params, network.batch_stats)(x)[0].values

    values = np.asarray(scores(network, image.astype(np.float32)))
    height, width = image.shape[1:3]
    assert values.shape[1:3] == (height // 8, width // 8)
    return np.stack(
        [cv2.resize(v, (width, height), interpolation=cv2.INTER_LINEAR) for v in values]
    )


@pytest.mark.parametrize(
    ("changes", "seen"),
    [({}, (32, 48)), ({"input_scale": 0.5}, (16, 24)), ({"input_size": (40, 24)}, (40, 24))],
)
def test_evaluation_counts_its_own_predictions_and_no_filling_rows(short, changes, seen):
    training = short(**changes, augment__size=(16, 24))
    batch = tiny.batch(0) | {"weight": np.array([1, 1, 0, 1, 1, 0, 1, 1], np.float32)}
    placed = sharding.put_batch(training.mesh, batch)
    found = jax.device_get(tiny.look(training)(tiny.network(training), placed))
    prediction, counted, counts = found["prediction"], batch["weight"] > 0, found["counts"]
    assert prediction.dtype == np.uint8
    assert prediction.shape == batch["label"].shape
    label = np.where(counted[:, None, None], batch["label"], VOID)
    valid = label != VOID
    for row in range(len(label)):
        expected = np.zeros((tiny.K, tiny.K), int)
        np.add.at(expected, (label[row][valid[row]], prediction[row][valid[row]]), 1)
        np.testing.assert_array_equal(counts["mean_iou"]["confusion"][row], expected)
    calibration = counts["calibration"]
    assert counts["cross_entropy"]["pixels"] == calibration["pixels"].sum() == valid.sum()

    image = batch["image"].astype(np.float32)
    image = np.stack([cv2.resize(i, seen[::-1], interpolation=cv2.INTER_LINEAR) for i in image])
    logits = logits_of(training, image)
    logits = np.stack([cv2.resize(x, (48, 32), interpolation=cv2.INTER_LINEAR) for x in logits])
    assert (prediction == logits.argmax(-1)).mean() > 0.999  # of rows without weight too
    assert len(np.unique(prediction)) > 1
    shifted = logits - logits.max(-1, keepdims=True)
    log_share = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    target = np.where(valid, label, 0)[..., None]
    loss = -(np.take_along_axis(log_share, target, -1)[..., 0] * valid).sum()
    assert counts["cross_entropy"]["loss"] == pytest.approx(loss, rel=1e-4)
    sure, right = np.exp(log_share.max(-1))[valid].sum(), (prediction == label)[valid].sum()
    assert calibration["confidence"].sum() == pytest.approx(sure, rel=1e-4)
    assert calibration["right"].sum() == right


@pytest.mark.parametrize("blocks", [3, 8, 32])
def test_counts_of_the_same_scores_are_the_same_bits_in_any_number_of_blocks(short, blocks):
    scores, label = counted.scored()
    judge = steps.Judge(metrics.build(tiny.SPEC))

    def counts(blocks):
        on_pixels = Scores(jnp.asarray(scores), Resize("half_pixel", 1))
        by_block = row_blocks.over(judge, on_pixels, jnp.asarray(label), blocks=blocks)
        return jax.device_get(steps.joined(by_block, label.shape[1])["counts"])

    got, expected = (tiny.by_name(counts(n)) for n in (blocks, 1))
    for name, value in expected.items():
        if name in ("cross_entropy/loss", "calibration/confidence"):  # not counts
            np.testing.assert_allclose(got[name], value, rtol=1e-6)
        else:
            assert value.dtype == np.int32
            np.testing.assert_array_equal(got[name], value)


def test_evaluation_is_the_same_on_many_devices_and_its_rows_come_back(short):
    one, many = short(), tiny.assemble(tiny.short_config(mesh__space=2), 8)
    results = []
    for training in (one, many):
        batch = sharding.put_batch(training.mesh, tiny.batch(0))
        results.append(tiny.look(training)(tiny.network(training), batch))
    expected, found = results
    rows = sharding.local_rows(found["prediction"])
    assert (rows == np.asarray(expected["prediction"])).mean() > 0.999
    np.testing.assert_array_equal(np.asarray(found["prediction"]), rows)
    losses = [result["counts"]["cross_entropy"] for result in results]
    assert int(losses[1]["pixels"]) == int(losses[0]["pixels"])
    assert float(losses[1]["loss"]) == pytest.approx(float(losses[0]["loss"]), rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_lowers_for_accelerators_from_a_cpu_host(dtype):
    training = tiny.assemble(tiny.config(dtype=dtype))
    batch = sharding.put_batch(training.mesh, tiny.batch(0))
    network = tiny.network(training, training.state_shapes())
    computed = {"float32": "xf32", "bfloat16": "xbf16"}[dtype]
    traced = tiny.look(training).trace(network, batch)
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        assert len(convolutions) >= 13 + 1 + 3, platform  # fc6 is one, as on no CPU
        assert all(computed in line for line in convolutions)


def test_one_program_serves_all_weights_of_a_model(short):
    """Weights are arguments, and a model is the same object wherever it is used."""
    training = short()
    network, batch = tiny.network(training), tiny.batch(0)
    look = tiny.look(training)
    first = look(network, batch)
    second = look(jax.tree.map(lambda leaf: leaf + 0.5, network), batch)
    assert look._cache_size() == 1
    assert float(first["counts"]["cross_entropy"]["loss"]) != float(
        second["counts"]["cross_entropy"]["loss"]
    )


def dropping(devices: int = 1, **trunk) -> assembly.Training:
    backbone = {"name": "tests.tiny:Trunk", "batch_norm": True, "dropout": 0.5} | trunk
    return tiny.assemble(tiny.config(model__backbone=backbone), devices)


@pytest.fixture(scope="module")
def sampled():
    """A training, its network, and what one step of SAMPLES passes finds in a batch of 4."""
    training = dropping()
    network, batch = tiny.network(training), tiny.batch(0, rows=4)
    found = tiny.look(training, samples=SAMPLES)(network, batch)
    return training, network, batch, jax.device_get(found)


def test_moments_are_those_of_the_softmax_over_passes():
    logits = np.random.default_rng(0).normal(0, 2, (2 * 5, 3, 4, 6)).astype(np.float32)
    log_mean, variance = steps.moments(jnp.asarray(logits), 2)
    wide = logits.astype(np.float64).reshape(2, 5, 3, 4, 6)
    p = np.exp(wide) / np.exp(wide).sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(log_mean), p.mean(1), rtol=1e-5)
    np.testing.assert_allclose(variance, p.var(1).mean(-1), rtol=1e-4)


def test_passes_are_those_of_the_network_with_dropout_and_running_averages(sampled):
    """One image, one pass after the other, through a model of its own; softmax in float64."""
    training, network, batch, found = sampled
    for row in (0, 2):
        number = steps.image_number(jnp.asarray(batch["image"][row]), batch["size"][row])
        key = jax.random.fold_in(jax.random.key(training.config.seed), number)
        passes = []
        for once in jax.random.split(key, SAMPLES):
            module = functional.merge(
                training.model.graphs.training, network.params, network.batch_stats
            )
            for _, part in nnx.iter_modules(module):
                if isinstance(part, nnx.BatchNorm):
                    part.use_running_average = True
            image = training.model.preprocess(batch["image"][row : row + 1])
            scores = module(image, rngs=nnx.Rngs(dropout=once))[0]
            logits = resize.apply(scores.values, *scores.matrices(tiny.SIZE))[0]
            passes.append(jax.nn.softmax(np.asarray(logits, np.float64)))
        assert np.abs(passes[0] - passes[1]).max() > 1e-3  # dropout does something
        mean, variance = np.mean(passes, 0), np.var(passes, 0).mean(-1)
        np.testing.assert_allclose(found["uncertainty"][row], variance, rtol=1e-3, atol=1e-7)
        top = np.sort(mean, -1)
        clear = top[..., -1] - top[..., -2] > 1e-5
        np.testing.assert_array_equal(found["prediction"][row][clear], mean.argmax(-1)[clear])
        valid = batch["label"][row] != VOID
        hits = (found["prediction"][row] == batch["label"][row]) & valid
        assert np.trace(found["counts"]["mean_iou"]["confusion"][row]) == hits.sum()


def test_the_number_of_an_image_depends_on_its_pixels_alone():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)
    number = int(steps.image_number(jnp.asarray(image), np.array([9, 7])))
    expected = 0
    for place, (red, green, blue) in enumerate(image.reshape(-1, 3).tolist()):
        word = red + 256 * green + 65536 * blue
        mixed = (word + 1) * (((place + 1) * 0x9E3779B1 | 1) % 2**32) % 2**32
        mixed = (mixed ^ mixed >> 15) * 0x85EBCA77 % 2**32
        expected += mixed ^ mixed >> 13
    assert number == expected % 2**32
    canvas = rng.integers(0, 256, (16, 12, 3)).astype(np.uint8)
    canvas[:9, :7] = image
    assert int(steps.image_number(jnp.asarray(canvas), np.array([9, 7]))) == number
    others = [np.where(np.arange(63).reshape(9, 7, 1) == i, image + 1, image) for i in range(63)]
    numbers = {int(steps.image_number(jnp.asarray(one), np.array([9, 7]))) for one in others}
    assert len(numbers | {number}) == 64


def test_an_images_passes_do_not_depend_on_its_batch_or_on_the_devices(sampled):
    training, network, batch, found = sampled
    order = np.array([2, 0])
    part = {key: value[order] for key, value in batch.items()} | {"index": np.uint32([7, 8])}
    again = tiny.look(training, samples=SAMPLES)(network, part)
    # A variance of numbers up to 1, in float32: to 1e-7 of their square.
    expected = found["uncertainty"][order]
    np.testing.assert_allclose(again["uncertainty"], expected, rtol=1e-5, atol=1e-7)
    many = dropping(devices=4)
    placed = sharding.put_batch(many.mesh, batch)
    spread = tiny.look(many, samples=SAMPLES)(tiny.network(many), placed)
    np.testing.assert_allclose(spread["uncertainty"], found["uncertainty"], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(spread["prediction"], found["prediction"])


def test_what_comes_before_the_first_dropout_is_computed_once(sampled):
    """The first convolution sees B images, not B N."""
    _, network, batch, _ = sampled
    passes = functools.partial(Network.sampled, samples=SAMPLES)
    text = str(jax.make_jaxpr(passes)(network, batch["image"], batch["index"]))
    (first, *_) = [line for line in text.splitlines() if "conv_general_dilated[" in line]
    assert "[4,1,4,6,6]" in first or "[4,4,6,6]" in first, first


def test_a_network_without_dropout_is_refused():
    training = dropping(dropout=0.0)
    with pytest.raises(InputError, match="no dropout"):
        tiny.look(training, samples=2)(tiny.network(training), tiny.batch(0))


def test_what_lies_beyond_an_image_is_no_part_of_it():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 24, 32, 3), np.uint8)
    logits = rng.normal(size=(1, 24, 32, 3)).astype(np.float32)
    label = rng.integers(0, 3, (1, 24, 32), np.uint8)
    crf = functools.partial(crfs.build("deeplab_v1").batch, capacity=6 * 24 * 32)
    found, more = steps.refined(image, logits, label, np.array([[17, 21]]), crf)
    cut = np.s_[:, :17, :21]
    own, more_own = steps.refined(image[cut], logits[cut], label[cut], np.array([[17, 21]]), crf)
    np.testing.assert_allclose(found[cut], own, atol=1e-4)
    np.testing.assert_array_equal(more["before"][cut], more_own["before"])
