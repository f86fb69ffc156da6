"""The CRF-RNN layer outside of a network."""

import functools
import inspect
import math

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import crf
from segjax.crf import kernels
from segjax.models import functional
from segjax.models.crf_rnn import CRFRNN
from segjax.models.features import Scores
from segjax.models.resize import Resize

K = 3
THETAS = {"theta_alpha": 6.0, "theta_beta": 40.0, "theta_gamma": 2.0}
ROOM = {"vertices": 6.0}
PARAMS = ("bilateral_weights", "compatibility", "spatial_weights")


def random_layer(**options) -> CRFRNN:
    """A layer with asymmetric matrices that converges slowly."""
    layer = CRFRNN(K, **THETAS | ROOM | {"w1": 0.8, "w2": 0.5} | options)
    rng = np.random.default_rng(1)
    for name in PARAMS:
        weights = getattr(layer, name)
        weights[...] = weights[...] + rng.normal(0, 0.7, (K, K)).astype(np.float32)
    return layer


def random_inputs(size=(7, 5), grid=None, rows: int = 2, seed: int = 0) -> tuple[Scores, jax.Array]:
    """Scores [rows, *grid, K], and images [rows, *size, 3] of patches of colour."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 2, (rows, *(grid or size), K)).astype(np.float32)
    image = rng.integers(0, 256, (rows, *(-(-n // 3) for n in size), 3))
    image = image.repeat(3, 1).repeat(3, 2)[:, : size[0], : size[1]]
    image = np.clip(image + rng.integers(-9, 10, image.shape), 0, 255).astype(np.uint8)
    return Scores(jnp.asarray(values), Resize("half_pixel")), jnp.asarray(image)


def run(layer: CRFRNN, scores: Scores, image: jax.Array) -> Scores:
    """The scores of the layer, compiled as one program."""
    graph, params = nnx.split(layer)

    @jax.jit
    def refined(params, values, image):
        return nnx.merge(graph, params)(scores.replace(values=values), image)

    return refined(params, scores.values, image)


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(0))
    return x / x.sum(0)


def by_hand(layer: CRFRNN, logits: np.ndarray, image: jax.Array, iterations: int) -> np.ndarray:
    """The formula of the Keras release in float64: [H, W, K] -> [H, W, K].

    Kernels are matrices of pixels by pixels: the filtered identity. Rows hold classes.
    """
    pixels = math.prod(logits.shape[:2])

    @jax.jit
    def matrices(image):
        how = {"normalization": "none"}
        bilateral = kernels.bilateral(
            image, layer.theta_alpha, layer.theta_beta, capacity=6 * pixels, **how
        )
        spatial = kernels.spatial(logits.shape[:2], layer.theta_gamma, by=layer.spatial, **how)
        return bilateral(jnp.eye(pixels)), spatial(jnp.eye(pixels))

    bilateral, spatial = (np.asarray(matrix, np.float64) for matrix in matrices(image))
    weights = {name: np.asarray(getattr(layer, name)[...], np.float64) for name in PARAMS}
    unary = logits.reshape(pixels, K).T.astype(np.float64)
    q = unary
    for _ in range(iterations):
        p = softmax(q)
        message = weights["spatial_weights"] @ (p @ spatial.T / spatial.sum(1))
        message += weights["bilateral_weights"] @ (p @ bilateral.T / bilateral.sum(1))
        q = unary - weights["compatibility"] @ message
    return q.T.reshape(logits.shape)


def in_evaluation(layer: CRFRNN) -> CRFRNN:
    return nnx.view(layer, use_running_average=True, deterministic=True, raise_if_not_found=False)


@pytest.mark.parametrize("spatial", kernels.SPATIAL)
def test_it_equals_the_release_s_formula_with_five_and_ten_iterations(spatial):
    layer = random_layer(spatial=spatial)
    scores, image = random_inputs((7, 9), grid=(2, 3))
    for view, iterations in ((layer, 5), (in_evaluation(layer), 10)):
        got = run(view, scores, image)
        assert got.values.dtype == jnp.float32
        for row in range(2):
            logits = cv2.resize(np.asarray(scores.values[row]), (9, 7))
            expected = by_hand(layer, logits, image[row], iterations)
            np.testing.assert_allclose(got.values[row], expected, rtol=1e-4, atol=1e-4)
    assert np.abs(run(layer, scores, image).values - got.values).max() > 1e-2


def test_passes_with_dropout_count_as_evaluation():
    sampling = nnx.view(random_layer(), use_running_average=True, raise_if_not_found=False)
    scores, image = random_inputs()
    np.testing.assert_array_equal(
        run(sampling, scores, image).values,
        run(in_evaluation(random_layer()), scores, image).values,
    )


def test_it_starts_as_the_preset_of_its_publication():
    preset = crf.PRESETS["crf_rnn"]
    options = {
        name: parameter.default
        for name, parameter in inspect.signature(CRFRNN.__init__).parameters.items()
    }
    for name in ("w1", "theta_alpha", "theta_beta", "w2", "theta_gamma", "spatial"):
        assert options[name] == getattr(preset, name), name
    assert (options["iterations"], options["test_iterations"]) == (5, preset.iterations)
    scores, image = random_inputs()
    got = run(in_evaluation(CRFRNN(K, **ROOM)), scores, image).values
    expected, _ = jax.jit(functools.partial(preset.batch, capacity=6 * 35))(image, scores.values)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (13, 7)])
def test_any_size_gets_a_score_for_every_pixel_without_a_resize(size):
    scores, image = random_inputs(size, grid=(2, 2), rows=1)
    got = run(random_layer(), scores, image)
    assert got.values.shape == (1, *size, K)
    assert np.isfinite(got.values).all()
    assert got.overflow.tolist() == [0]
    for matrix, pixels in zip(got.matrices(size), size, strict=True):
        np.testing.assert_array_equal(matrix, np.eye(pixels))


@pytest.mark.slow
def test_images_of_a_batch_do_not_affect_each_other_one_by_one_or_all_at_once(monkeypatch):
    layer, (scores, image) = random_layer(), random_inputs(rows=3)
    together = run(layer, scores, image).values
    for row in range(3):
        part = slice(row, row + 1)
        alone = run(layer, scores.replace(values=scores.values[part]), image[part]).values
        np.testing.assert_allclose(together[part], alone, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    np.testing.assert_allclose(run(layer, scores, image).values, together, rtol=1e-5, atol=1e-5)


def test_gradients_are_finite_differences(monkeypatch):
    """By every matrix and by the scores, with images one after the other."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    scores, image = random_inputs((4, 5), rows=1)
    weights = np.random.default_rng(3).normal(0, 1, (4, 5, K))
    graph, params = nnx.split(random_layer(iterations=3))
    arrays = {"values": scores.values} | functional.plain(params)

    def loss(arrays):
        layer = functional.merge(graph, {name: arrays[name] for name in PARAMS}, {})
        return jnp.sum(weights * layer(scores.replace(values=arrays["values"]), image).values)

    gradient = jax.jit(jax.grad(loss))(arrays)
    value = jax.jit(loss)
    for name, array in arrays.items():
        assert np.isfinite(gradient[name]).all()
        # Along its own gradient: there the slope is its length.
        length = float(jnp.linalg.norm(gradient[name]))
        assert length > 1e-2
        step = 1e-2 * gradient[name] / length
        ahead, behind = (value(arrays | {name: array + s * step}) for s in (1, -1))
        assert (ahead - behind) / 2e-2 == pytest.approx(length, rel=5e-3), name


def test_it_learns_that_boundaries_follow_colours():
    """Scores are wrong in whole patches, which the colours reveal."""
    rng = np.random.default_rng(0)
    label = (np.arange(12)[:, None] + np.arange(12) > 11).astype(int)[None]
    image = np.array([[40, 60, 200], [220, 120, 30]])[label] + rng.normal(0, 2, (1, 12, 12, 3))
    truth = np.eye(K)[label]
    wrong = rng.random((1, 4, 4, 1)).repeat(3, 1).repeat(3, 2) < 0.35
    values = np.where(wrong, np.roll(truth, 1, -1), truth) + rng.normal(0, 0.3, truth.shape)
    scores = Scores(jnp.asarray(values, jnp.float32), Resize("half_pixel", 1))
    layer = CRFRNN(K, **THETAS | ROOM, w1=0.1, w2=0.1)
    graph, params = nnx.split(layer)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        logits = nnx.merge(graph, params)(scores, jnp.asarray(image, jnp.float32)).values
        log_p = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.sum(truth * log_p, -1)), logits.argmax(-1)

    first = None
    for _ in range(8):
        (now, prediction), gradient = loss(params)
        first = first or (float(now), np.mean(np.asarray(prediction) == label))
        params = jax.tree.map(lambda p, g: p - g, params, gradient)
    assert now < 0.6 * first[0]
    assert np.mean(np.asarray(prediction) == label) > first[1] + 0.1


def noise(size=(12, 12), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def test_an_image_without_room_gets_nan_and_the_number_of_vertices_it_needs():
    grey = np.full((12, 12, 3), 90, np.uint8)
    image = jnp.asarray(np.stack([grey, noise()]))
    scores, _ = random_inputs((12, 12))

    def refined(vertices):
        return run(CRFRNN(K, iterations=1, vertices=vertices), scores, image)

    got = refined(1.0)
    assert np.isfinite(got.values[0]).all()
    assert np.isnan(got.values[1]).all()
    fine, lacking = got.overflow.tolist()
    assert fine == 0
    assert 144 < lacking <= 6 * 144
    (wanted,) = got.crf_scalars().values()
    assert wanted == pytest.approx(lacking / 144)
    assert refined(float(wanted)).overflow.tolist() == [0, 0]
    assert refined(100.0).overflow.tolist() == [0, 0]
    assert refined(float(wanted) - 1 / 144).overflow.tolist() == [0, lacking]
