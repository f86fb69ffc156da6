import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from segjax import crf
from segjax.crf import DenseCrf, kernels, mean_field
from segjax.errors import InputError
from tests.crf import made

SIZE, K = (8, 9), 3
# No pixel lies on the face of a simplex, where rounding decides between two.
CRF = DenseCrf(3.0, 5.3, 29.0, 1.5, 1.37, iterations=3)
PLENTY = 6 * SIZE[0] * SIZE[1]
LEAVES = ("w1", "theta_alpha", "theta_beta", "w2", "theta_gamma")


@functools.partial(jax.jit, static_argnames="capacity")
def _run(crf, image, logits, mask=None, known=None, capacity=PLENTY):
    return crf(image, logits, capacity=capacity, mask=mask, known=known)


def drawn(seed: int = 0, size=SIZE, classes: int = K) -> tuple[np.ndarray, np.ndarray]:
    return made.photo(size, seed), made.scores(size, classes, seed)


def by_loops(crf: DenseCrf, image: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Marginals [H, W, K] from dictionaries of vertices and loops over points, labels and pairs."""
    size, classes = logits.shape[:2], logits.shape[2]
    eye, places = np.eye(size[0] * size[1]), made.places(size) / crf.theta_gamma
    sums = (
        made.Lattice(made.pixels(image, crf.theta_alpha, crf.theta_beta))(eye),
        made.Lattice(places)(eye) if crf.spatial == "lattice" else made.kernel(places),
    )
    if crf.unary == "probabilities":
        logits = np.log(np.maximum(made.softmax(logits), 1e-5))
    found = made.marginals(
        logits.reshape(-1, classes),
        [made.normalized(dense, crf.normalization) for dense in sums],
        [made.potts(weight, classes) for weight in (crf.w1, crf.w2)],
        iterations=crf.iterations,
        relaxation=crf.relaxation,
    )
    return found.reshape(logits.shape)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"normalization": "symmetric", "unary": "probabilities"},
        {"normalization": "none", "w1": 0.6, "w2": 0.3},
        {"spatial": "gaussian", "relaxation": 0.8},
    ],
)
def test_marginals_equal_those_of_loops_over_dictionaries(changes):
    image, logits = drawn()
    logits[0, :3] = (14, 0, 0)  # below the least probability
    one = CRF.replace(**changes)
    # A sum without a lattice needs its deviation as a number: only the arrays are traced.
    found, lacking = jax.jit(functools.partial(one, capacity=PLENTY))(image, logits)
    assert lacking == 0
    # A relative tolerance, because clipped marginals are small.
    np.testing.assert_allclose(made.softmax(found), by_loops(one, image, logits), rtol=5e-4)
    assert np.abs(made.softmax(found) - made.softmax(logits)).mean() > 0.03


@pytest.mark.parametrize(
    ("size", "classes"), [((1, 1), 3), ((1, 6), 3), ((5, 1), 9), ((3, 5), 1), ((3, 3), 8)]
)
def test_any_size_and_any_number_of_labels_work(size, classes):
    image, logits = drawn(size=size, classes=classes)
    found, lacking = _run(CRF, image, logits, capacity=6 * size[0] * size[1])
    assert lacking == 0
    np.testing.assert_allclose(made.softmax(found), by_loops(CRF, image, logits), atol=2e-5)


def test_without_weights_the_logits_do_not_change():
    image, logits = drawn()
    np.testing.assert_array_equal(_run(CRF.replace(w1=0.0, w2=0.0), image, logits)[0], logits)


def test_permuted_labels_give_permuted_marginals():
    image, logits = drawn()
    order = np.array([2, 0, 1])
    expected = _run(CRF, image, logits)[0][..., order]
    np.testing.assert_allclose(_run(CRF, image, logits[..., order])[0], expected, atol=1e-5)


def in_corner(canvas=(10, 13)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A larger image and its logits, with those of `drawn` in a corner, and the corner's mask."""
    image, logits = drawn(7, canvas)
    height, width = SIZE
    image[:height, :width], logits[:height, :width] = drawn()
    mask = np.zeros(canvas, bool)
    mask[:height, :width] = True
    return image, logits, mask


def test_pixels_outside_a_mask_neither_send_nor_receive_messages():
    image, logits, mask = in_corner()
    found, lacking = _run(CRF, image, logits, mask)
    assert lacking == 0
    expected = _run(CRF, *drawn())[0].reshape(-1, K)
    np.testing.assert_allclose(found[mask], expected, atol=2e-5)
    np.testing.assert_array_equal(found[~mask], logits[~mask])
    logits[~mask] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(_run(CRF, image, logits, mask)[0][mask], found[mask])


def test_unknown_pixels_get_their_labels_from_the_others():
    image, logits = drawn()
    known = np.random.default_rng(2).random(SIZE) < 0.5
    found = _run(CRF, image, logits, known=known)[0]
    expected = _run(CRF, image, np.where(known[..., None], logits, 0))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found[~known], axis=-1).max() > 0.1


def test_without_room_the_result_is_nan_with_the_capacity_that_is_needed():
    image, logits = drawn()
    found, lacking = _run(CRF, image, logits, capacity=10)
    assert np.isnan(found).all()
    assert 10 < lacking < PLENTY
    found, still = _run(CRF, image, logits, capacity=int(lacking))
    assert still == 0
    np.testing.assert_allclose(found, _run(CRF, image, logits)[0], atol=1e-5)


def leaves(crf: DenseCrf) -> dict[str, float]:
    return {name: getattr(crf, name) for name in LEAVES}


def vector(crf: DenseCrf) -> np.ndarray:
    """The five parameters of a CRF: [..., 5]."""
    return np.stack([*leaves(crf).values()], axis=-1)


def likelihood(scores: jax.Array, toward: np.ndarray) -> jax.Array:
    return jnp.vdot(toward, jax.nn.log_softmax(scores))


@pytest.mark.parametrize("changes", [{}, {"normalization": "symmetric", "relaxation": 0.8}])
def test_gradients_by_everything_are_finite_differences(changes):
    with jax.enable_x64(True):
        image, logits, mask = in_corner()
        toward = np.random.default_rng(9).normal(size=logits.shape)
        image = image + np.random.default_rng(8).random(image.shape)  # off the simplices' faces
        at = leaves(CRF) | {"image": image, "logits": logits}
        at = {name: np.asarray(value, np.float64) for name, value in at.items()}

        @jax.jit
        def loss(image, logits, **given):
            one = CRF.replace(**changes, **given)
            return likelihood(one(image, logits, capacity=500, mask=mask)[0], toward)

        gradients = jax.jit(jax.grad(lambda at: loss(**at)))(at)
        assert made.along(gradients) == pytest.approx(made.slopes(loss, at), rel=1e-5)
        assert min(abs(made.along(gradients)[name]) for name in at) > 1e-3


def test_gradients_by_a_gaussian_s_deviation_and_compatibilities_are_finite_differences():
    with jax.enable_x64(True):
        image, logits = drawn()
        toward = np.random.default_rng(9).normal(size=(logits[..., 0].size, K))
        matrix = np.random.default_rng(4).normal(size=(K, K))
        at = {"theta": np.array(1.5), "matrix": matrix, "weight": np.array(1.5)}
        kind = {"normalization": "after", "dtype": jnp.float64}

        @jax.jit
        def loss(theta, matrix, weight):
            filters = (
                kernels.bilateral(image, 5.0, 30.0, capacity=PLENTY, **kind),
                kernels.spatial(SIZE, theta, by="gaussian", reach=6, **kind),
            )
            unary = jnp.asarray(logits.reshape(-1, K), jnp.float64)
            found = mean_field.infer(unary, filters, (matrix, weight), iterations=3)
            return likelihood(found, toward)

        gradients = jax.jit(jax.grad(lambda at: loss(**at)))(at)
        assert made.along(gradients) == pytest.approx(made.slopes(loss, at), rel=1e-6)


@pytest.mark.slow
def test_gradients_with_a_mask_equal_those_of_the_image_alone():
    image, logits, mask = in_corner()
    toward = np.random.default_rng(9).normal(size=(*SIZE, K)).astype(np.float32)

    @jax.jit
    @jax.grad
    def run(crf, image, logits, mask):
        scores, _ = crf(image, logits, capacity=700, mask=mask)
        return likelihood(scores[: SIZE[0], : SIZE[1]], toward)

    found = vector(run(CRF, image, logits, mask))
    expected = vector(run(CRF, *drawn(), None))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def loss(crf: DenseCrf, image: np.ndarray, logits: np.ndarray) -> jax.Array:
    toward = np.random.default_rng(9).normal(size=logits.shape).astype(np.float32)
    return likelihood(crf(image, logits, capacity=PLENTY)[0], toward)


_slope = jax.jit(jax.value_and_grad(loss))


@pytest.mark.slow
def test_stacked_parameters_give_the_results_and_gradients_of_each_alone():
    ones = [CRF, CRF.replace(w1=1.0, theta_alpha=9.3), CRF.replace(w2=0.5, theta_gamma=2.47)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *ones)
    both = jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(0, None, None)))
    values, gradients = both(stacked, *drawn())
    for value, found, one in zip(values, vector(gradients), ones, strict=True):
        expected, gradient = _slope(one, *drawn())
        np.testing.assert_allclose(value, expected, atol=1e-4)
        np.testing.assert_allclose(found, vector(gradient), rtol=1e-3, atol=1e-3)


def test_the_gradient_of_a_batch_is_the_sum_of_those_of_its_images():
    @jax.jit
    @jax.grad
    def run(crf, image, logits):
        toward = np.random.default_rng(9).normal(size=logits.shape[1:]).astype(np.float32)
        scores, _ = crf.batch(image, logits, capacity=PLENTY)
        return jax.vmap(likelihood, in_axes=(0, None))(scores, toward).sum()

    image, logits, _ = rows(2)
    expected = sum(vector(_slope(CRF, *row)[1]) for row in zip(image, logits, strict=True))
    np.testing.assert_allclose(vector(run(CRF, image, logits)), expected, rtol=1e-3, atol=1e-3)


def rows(count: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch of different images, logits and masks."""
    image, logits = (np.stack(x) for x in zip(*map(drawn, range(count)), strict=True))
    mask = np.arange(SIZE[1]) < (SIZE[1] - np.arange(count) // 2)[:, None, None]
    return image, logits, np.broadcast_to(mask, image.shape[:3])


_batch = jax.jit(functools.partial(CRF.batch, capacity=PLENTY))


@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_gives_the_results_of_each_image_alone(masked):
    image, logits, mask = rows(3)
    mask = mask if masked else None
    found, lacking = _batch(image, logits, mask=mask)
    at_once = jax.jit(jax.vmap(functools.partial(CRF, capacity=PLENTY)))  # as accelerators do
    for i in range(3):
        alone, _ = _run(CRF, image[i], logits[i], mask if mask is None else mask[i])
        np.testing.assert_allclose(found[i], alone, atol=1e-5)
    assert not lacking.any()
    if not masked:
        np.testing.assert_allclose(at_once(image, logits)[0], found, atol=1e-5)


def test_each_image_of_a_batch_reports_the_capacity_it_needs():
    image, logits, _ = rows(3)
    image[1] = 128
    found, lacking = jax.jit(functools.partial(CRF.batch, capacity=80))(image, logits)
    assert lacking[1] == 0
    assert min(lacking[0], lacking[2]) > 80
    assert np.isfinite(found[1]).all()
    assert np.isnan(found[0]).all()


def test_a_batch_on_eight_devices_equals_one_on_a_single_device():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    # Loop carries start as constants, which the check assumes to be equal on all devices.
    @jax.jit
    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False
    )
    def spread(image, logits, mask):
        return CRF.batch(image, logits, mask=mask, capacity=PLENTY)

    placed = jax.device_put(rows(), jax.NamedSharding(mesh, P("data")))
    found = spread(*placed)
    assert len(found[0].sharding.device_set) == 8
    image, logits, mask = rows()
    expected = _batch(image, logits, mask=mask)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_array_equal(found[1], expected[1])


def test_the_presets_are_those_of_the_publications():
    numbers = {name: (*leaves(one).values(), one.iterations) for name, one in crf.PRESETS.items()}
    assert numbers == {
        "deeplab_v1": (4, 49, 5, 3, 3, 10),
        "deeplab_v2_resnet101": (4, 67, 3, 3, 1, 10),
        "pydensecrf_example": (10, 80, 13, 3, 3, 5),
        "crf_rnn": (5, 160, 3, 3, 3, 10),
    }
    kinds = {one.name: (one.normalization, one.unary) for one in crf.PRESETS.values()}
    assert kinds.pop("pydensecrf_example") == ("symmetric", "probabilities")
    assert set(kinds.values()) == {("after", "logits")}


def test_a_preset_is_read_with_its_changes():
    assert crf.parse("") is None
    assert crf.parse("deeplab_v1") is crf.PRESETS["deeplab_v1"]
    assert crf.parse("deeplab_v1, w1=4.0") is crf.PRESETS["deeplab_v1"]
    one = crf.parse("deeplab_v1, w1=5, spatial='gaussian'")
    assert one == crf.build("deeplab_v1", spatial="gaussian", w1=5)
    assert one.replace(w1=4.0, spatial="lattice", name="deeplab_v1") == crf.PRESETS["deeplab_v1"]
    assert one.name.startswith("deeplab_v1-")
    assert one.name != crf.parse("deeplab_v1, w1=6, spatial='gaussian'").name
    assert DenseCrf(**json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deeplab_v3", "unknown 'deeplab_v3'; known: deeplab_v1, .* Did you mean \"deeplab_v1\"?"),
        (", w1=3", "unknown ''; known: deeplab_v1"),
        ("crf_rnn, w3=3", "unknown 'w3'; known: w1, theta_alpha"),
        ("crf_rnn, name='x'", "unknown 'name'"),
        ("crf_rnn, w1", "is not a preset with key=value after it"),
        ("crf_rnn, w1=x", "w1: 'x'; it must be a number"),
        ("crf_rnn, normalization='row'", "normalization: unknown 'row'; known: after, before"),
        ("crf_rnn, spatial='fft'", "spatial: unknown 'fft'; known: lattice, gaussian"),
        ("crf_rnn, unary='labels'", "unary: unknown 'labels'; known: logits, probabilities"),
        ("crf_rnn, w2=-1", "w2: -1; it must be a number, 0 or more"),
        ("crf_rnn, w1='4'", "w1: '4'; it must be a number, 0 or more"),
        ("crf_rnn, w1=True", "w1: True; it must be a number, 0 or more"),
        ("crf_rnn, theta_beta=0", "theta_beta: 0; it must be a number above 0"),
        ("crf_rnn, theta_gamma=1e999", "theta_gamma: inf; it must be a number above 0"),
        ("crf_rnn, relaxation=0", "relaxation: 0; it must be above 0 and at most 1"),
        ("crf_rnn, relaxation=1.5", "relaxation: 1.5; it must be above 0 and at most 1"),
        ("crf_rnn, iterations=2.5", "iterations: 2.5; it must be a whole number, 0 or more"),
        ("crf_rnn, iterations=-1", "iterations: -1; it must be a whole number, 0 or more"),
    ],
)
def test_wrong_presets_fields_and_values_are_refused_by_name(text, message):
    with pytest.raises(InputError, match=f"^config.eval.crf.*{message}"):
        crf.parse(text)


def test_nan_is_refused():
    with pytest.raises(InputError, match="w1: nan"):
        crf.build("crf_rnn", w1=math.nan)


def test_scores_of_half_precision_are_refined_in_float32():
    image, logits = drawn()
    rounded = logits.astype(jnp.bfloat16)
    found = _run(CRF, image, rounded)[0]
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, _run(CRF, image, rounded.astype(np.float32))[0])
