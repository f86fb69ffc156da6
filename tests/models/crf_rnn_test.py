"""CRF-RNN: the layer, and what it is to a training, an evaluation and a run."""

import functools
import inspect
import math

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import crf, evaluation, experiment, optim, state, tracking
from segjax.crf import kernels
from segjax.data import catalog
from segjax.errors import InputError
from segjax.models.crf_rnn import CRFRNN
from segjax.models.features import Scores
from segjax.models.resize import Resize
from tests import runs, tiny

K = 3
THETAS = {"theta_alpha": 6.0, "theta_beta": 40.0, "theta_gamma": 2.0}
ROOM = {"vertices": 6.0}
PARAMS = ("bilateral_weights", "compatibility", "spatial_weights")


def random_layer(**options) -> CRFRNN:
    """With matrices that nothing is symmetric in, and slow to converge."""
    layer = CRFRNN(K, **THETAS | ROOM | {"w1": 0.8, "w2": 0.5} | options)
    rng = np.random.default_rng(1)
    for name in PARAMS:
        weights = getattr(layer, name)
        weights[...] = weights[...] + rng.normal(0, 0.7, (K, K)).astype(np.float32)
    return layer


def random_inputs(size=(7, 5), grid=None, rows: int = 2, seed: int = 0) -> tuple[Scores, jax.Array]:
    """Scores [rows, *grid, K] and images of patches of colour."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 2, (rows, *(grid or size), K)).astype(np.float32)
    image = rng.integers(0, 256, (rows, *(-(-n // 3) for n in size), 3))
    image = image.repeat(3, 1).repeat(3, 2)[:, : size[0], : size[1]]
    image = np.clip(image + rng.integers(-9, 10, image.shape), 0, 255).astype(np.uint8)
    return Scores(jnp.asarray(values), Resize("half_pixel")), jnp.asarray(image)


def run(layer: CRFRNN, scores: Scores, image: jax.Array) -> Scores:
    """The layer, as one program."""
    graph, params = nnx.split(layer)

    @jax.jit
    def refined(params, values, image):
        return nnx.merge(graph, params)(scores.replace(values=values), image)

    return refined(params, scores.values, image)


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(0))
    return x / x.sum(0)


def by_hand(layer: CRFRNN, logits: np.ndarray, image: jax.Array, iterations: int) -> np.ndarray:
    """[H, W, K] -> [H, W, K] as the Keras release writes it: classes are rows, float64.

    The kernels are matrices of pixels by pixels, made of the sums of every single pixel.
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
def test_it_is_the_release_s_formula_in_five_and_in_ten_iterations(spatial):
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


def test_passes_with_dropout_left_on_are_an_evaluation_too():
    sampling = nnx.view(random_layer(), use_running_average=True, raise_if_not_found=False)
    scores, image = random_inputs()
    np.testing.assert_array_equal(
        run(sampling, scores, image).values,
        run(in_evaluation(random_layer()), scores, image).values,
    )


def test_it_begins_as_the_preset_of_its_publication():
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
def test_any_size_gets_a_score_for_every_pixel_which_the_image_takes_as_it_is(size):
    scores, image = random_inputs(size, grid=(2, 2), rows=1)
    got = run(random_layer(), scores, image)
    assert got.values.shape == (1, *size, K)
    assert np.isfinite(got.values).all()
    assert got.overflow.tolist() == [0]
    for matrix, pixels in zip(got.matrices(size), size, strict=True):
        np.testing.assert_array_equal(matrix, np.eye(pixels))


def test_images_of_a_batch_know_nothing_of_each_other_one_by_one_or_all_at_once(monkeypatch):
    layer, (scores, image) = random_layer(), random_inputs(rows=3)
    together = run(layer, scores, image).values
    for row in range(3):
        part = slice(row, row + 1)
        alone = run(layer, scores.replace(values=scores.values[part]), image[part]).values
        np.testing.assert_allclose(together[part], alone, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    np.testing.assert_allclose(run(layer, scores, image).values, together, rtol=1e-5, atol=1e-5)


def test_gradients_are_slopes(monkeypatch):
    """Of every matrix and of the scores, one image after the other."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    scores, image = random_inputs((4, 5), rows=1)
    weights = np.random.default_rng(3).normal(0, 1, (4, 5, K))
    graph, params = nnx.split(random_layer(iterations=3))
    arrays = {"values": scores.values} | state.plain(params)

    def loss(arrays):
        layer = state.merge(graph, {name: arrays[name] for name in PARAMS}, {})
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
    """Scores that are wrong in whole patches; the colours know better."""
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


def test_an_image_without_room_is_nan_and_says_how_much_would_do():
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
    (wanted,) = got.wanted().values()
    assert wanted == pytest.approx(lacking / 144)
    assert refined(float(wanted)).overflow.tolist() == [0, 0]
    assert refined(100.0).overflow.tolist() == [0, 0]
    assert refined(float(wanted) - 1 / 144).overflow.tolist() == [0, lacking]


# From here on: a network with it, its training and its runs.


def config(**changes):
    """The short network with the CRF, on crops of 16 x 24."""
    quiet = {"augment__size": (16, 24), "optim__weight_decay": 0.0}
    return tiny.short_config(**{"model__crf": dict(ROOM)} | quiet | changes)


def assemble(devices: int = 1, **changes) -> experiment.Experiment:
    return tiny.assemble(config(**changes), devices)


@functools.cache
def step_of(devices: int, **changes):
    """What one step makes of awake weights: state and scalars, on the host."""
    parts = assemble(devices, **changes)
    ts = tiny.awake_state(parts)
    before = tiny.by_name(ts.params)
    after, scalars = parts.train_step(ts, state.put_batch(parts.mesh, tiny.batch(5)))
    return before, jax.device_get(after), jax.device_get(scalars)


def test_a_step_reaches_every_matrix_and_every_weight_of_the_network():
    before, ts, scalars = step_of(1)
    after = tiny.by_name(ts.params)
    assert {f"crf/{name}" for name in PARAMS} <= before.keys()
    assert scalars["skipped"] == scalars["crf_vertices_wanted"] == 0
    for name in before:
        assert np.isfinite(after[name]).all()
        assert (before[name] != after[name]).any(), name


@pytest.mark.parametrize(
    ("devices", "changes"), [(8, {}), (4, {"mesh__space": 2}), (1, {"accumulate": 2})]
)
def test_a_step_is_the_same_on_many_devices_and_in_parts(devices, changes):
    _, expected, expected_scalars = step_of(1)
    _, ts, scalars = step_of(devices, **changes)
    tiny.assert_close(ts.params, expected.params)
    tiny.assert_close(scalars, expected_scalars)


def test_training_evaluation_and_passes_show_it_the_image_of_0_to_255():
    """Not the one that the backbone was made for. Nothing is augmented, and nothing dropped."""
    trunk = {"name": "tests.tiny:Trunk", "batch_norm": False, "dropout": 1e-9}
    parts = assemble(
        model__backbone=trunk,
        model__crf=ROOM | {"test_iterations": 5, "theta_alpha": 20.0, "theta_beta": 30.0},
        augment__size=tiny.SIZE,
        augment__scale=(1.0, 1.0),
        augment__flip=0.0,
        preprocess__bgr=True,
    )
    ts, batch = tiny.awake_state(parts), tiny.batch(2, rows=4)
    weights = ts.params, ts.batch_stats
    layer = CRFRNN(tiny.K, **parts.config.model.crf)
    for name in PARAMS:
        getattr(layer, name)[...] = ts.params["crf"][name]
    head = tiny.assemble(config(model__backbone=trunk, model__crf=None, preprocess__bgr=True))
    without = {name: part for name, part in ts.params.items() if name != "crf"}
    scores = jax.jit(head.network)(without, {}, batch["image"])
    logits = run(layer, scores, jnp.asarray(batch["image"])).values

    np.testing.assert_allclose(
        jax.jit(parts.network)(*weights, batch["image"]).values, logits, rtol=1e-4, atol=1e-4
    )
    once, passes = parts.eval_step(*weights, batch), parts.sampled_step(2)(*weights, batch)
    for found in (once, passes):
        assert np.mean(np.asarray(found["prediction"]) == logits.argmax(-1)) > 0.999
        assert found["loss"] == pytest.approx(float(once["loss"]), rel=1e-4)
    _, scalars = parts.train_step(ts, batch)
    assert scalars["loss"] == pytest.approx(float(once["loss"] / once["pixels"]), rel=1e-4)


def test_devices_share_no_images():
    """Only sums and ends of loops."""
    parts = assemble(8)
    batch = state.put_batch(parts.mesh, tiny.batch(5))
    text = parts.train_step.lower(parts.state_shapes(), batch).compile().as_text()
    assert "all-reduce" in text
    assert "all-gather" not in text
    assert "all-to-all" not in text


def test_a_network_without_a_crf_returns_nothing_new():
    parts = tiny.assemble(tiny.short_config(model__crf=None))
    ts, batch = parts.state_shapes(), tiny.batch(0)
    _, scalars = jax.eval_shape(parts.train_step, ts, batch)
    assert scalars.keys() == {"loss", "grad_norm", "lr", "valid", "skipped"}
    out = jax.eval_shape(parts.eval_step, ts.params, ts.batch_stats, batch)
    assert not any("crf" in key for key in out)
    assert "crf" not in ts.params


def test_its_matrices_may_have_a_rate_of_their_own():
    params = jax.eval_shape(lambda: state.initial_arrays(assemble().build, 0)[0])
    rates, decays = optim.multipliers(params, (("crf/*", 100.0, 0.0),))
    assert set(rates["crf"].values()) == {100.0}
    assert set(decays["crf"].values()) == {0.0}
    assert set(jax.tree.leaves(rates["backbone"])) == {1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"theta_delta": 1.0}, "model.crf: CRF-RNN takes no 'theta_delta'; allowed: .*theta_gamma"),
        ({"spatial": "box"}, "config.model.crf.spatial: unknown 'box'; known: lattice, gaussian"),
        ({"vertices": 0}, "config.model.crf.vertices: 0; it is above 0"),
        ({"theta_beta": float("nan")}, "config.model.crf.theta_beta: nan; it is above 0"),
        ({"iterations": 0}, "config.model.crf.iterations: 0; it is a whole number, 1 or more"),
        ({"test_iterations": 2.5}, "config.model.crf.test_iterations: 2.5"),
    ],
)
def test_what_is_not_allowed_is_one_clear_line(changes, message):
    with pytest.raises(InputError, match=message):
        assemble(model__crf=changes)


def test_it_does_not_go_with_several_scales_and_wants_the_image():
    with pytest.raises(InputError, match="crf and multi_scale"):
        assemble(model__multi_scale={"scales": (1, 0.5), "align": "corners"})
    parts = assemble()
    with pytest.raises(InputError, match="no image of 0 to 255"):
        jax.eval_shape(lambda x: parts.build(nnx.Rngs(0))(x), jnp.zeros((1, 16, 24, 3)))


def test_an_auxiliary_head_s_scores_stay_as_they_are():
    aux = {"name": "conv", "stage": "fc7", "width": 4, "norm": {"name": "none"}}
    outputs = {}
    x, image = jnp.ones((1, 16, 24, 3)), jnp.full((1, 16, 24, 3), 90.0)
    for given in (None, ROOM):
        build = assemble(model__aux=aux, model__crf=given).build
        params, batch_stats = tiny.drawn(jax.eval_shape(lambda b=build: state.initial_arrays(b, 0)))
        graph = state.graphs(build)[1]
        outputs[given is None] = state.merge(graph, params, batch_stats)(x, image=image)
    (plain, side), (refined, same) = outputs[True], outputs[False]
    tiny.assert_same_bits(same, side)
    assert refined.values.shape[1:3] == (16, 24) != plain.values.shape[1:3]
    assert side.overflow is None


def scenes_config(**changes):
    """Four steps on scenes that are seen at 24 x 32, with statistics of the batch and dropout."""
    small = {"input_scale": 0.5, "augment__size": (24, 32), "total_steps": 4, "eval__limit": 4}
    return runs.config(**{"model__crf": dict(ROOM)} | small | changes)


def evaluated(made, views: str = "") -> evaluation.Result:
    dataset = catalog.load(**made.data)
    parts = experiment.assemble(made, dataset.spec, None, jax.devices()[:1])
    ts = tiny.awake_state(parts)
    split = experiment.open_split(dataset, made, "val")
    how = evaluation.protocol(parts, "val", split.scan.sizes, views)
    evaluator = evaluation.Evaluator(parts, split.source, split.scan.sizes, how)
    return evaluator(ts.params, ts.batch_stats)


VIEWS = ["single", "single, samples=2", "single, tile=(20, 24), flip=True"]


@pytest.mark.parametrize("views", VIEWS)
def test_every_protocol_has_it_or_says_what_it_lacks(views):
    result = evaluated(scenes_config(), views)
    assert np.isfinite(result.loss)
    assert result.examples == 4
    with pytest.raises(InputError, match=r"crf.vertices is too small.* config.json"):
        evaluated(scenes_config(model__crf={"vertices": 0.05}), views)


def test_statistics_of_norms_can_be_estimated_again():
    parts = assemble(model__backbone={"name": "tests.tiny:Trunk", "batch_norm": True, "dropout": 0})
    ts, batch = tiny.awake_state(parts), tiny.batch(3)
    found = parts.batch_statistics(ts.params, ts.batch_stats, batch)
    assert np.isfinite(tiny.by_name(found)["backbone/norm/mean"]).all()


def test_a_training_without_room_ends_with_the_cause_and_goes_on_with_more(tmp_path):
    with pytest.raises(InputError, match="3 steps in a row") as told:
        runs.train_plainly(scenes_config(model__crf={"vertices": 0.05}), tmp_path)
    words = str(told.value).split()
    assert "config.model.crf.vertices is too small: an image needs" in str(told.value)
    assert 0.3 < float(words[words.index("needs") + 1]) <= 6
    assert "\n" not in str(told.value)
    with pytest.raises(InputError, match="another config: model.crf.w1"):
        runs.train_plainly(scenes_config(model__crf=ROOM | {"w1": 4.0}), tmp_path)
    runs.train_plainly(scenes_config(), tmp_path)
    assert experiment.read_config(tmp_path).model.crf.vertices == ROOM["vertices"]
    assert runs.final(tmp_path)["step"] == 4
    events = tracking.read_metrics(tmp_path)
    lacking = {e["step"]: e["train/crf_vertices_wanted"] for e in events if "train/loss" in e}
    assert sorted(lacking) == [1, 2, 3, 4]
    assert lacking[3] > 0 == lacking[4]
