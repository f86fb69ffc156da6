import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.crf import mean_field
from segjax.data.spec import VOID
from tests.crf import made

SIZE, K = (4, 5), 5
N = SIZE[0] * SIZE[1]
LOGITS = made.scores(SIZE, K).reshape(N, K)
# One matrix is symmetric and one is not, so that sending and receiving cannot be mixed up.
SENT = tuple(
    made.normalized(made.kernel(features), "after")
    for features in (made.pixels(made.photo(SIZE), 4, 30), made.places(SIZE) / 1.5)
)


def matrix(seed: int) -> np.ndarray:
    """[K, K], not symmetric."""
    return np.random.default_rng(seed).normal(0, 2, (K, K))


ENERGIES = {
    "potts": ((2.0, 1.5), [made.potts(2, K), made.potts(1.5, K)]),
    "diagonal": ((matrix(0)[0], matrix(1)[0]), [np.diag(matrix(0)[0]), np.diag(matrix(1)[0])]),
    "full": ((matrix(0), matrix(1)), [matrix(0), matrix(1)]),
    "full and potts": ((matrix(0), 1.5), [matrix(0), made.potts(1.5, K)]),
}


@functools.partial(jax.jit, static_argnames=("iterations", "relaxation"))
def _infer(logits, compatibilities, iterations=4, relaxation=1.0):
    filters = [functools.partial(jnp.matmul, jnp.asarray(sent, logits.dtype)) for sent in SENT]
    return mean_field.infer(
        logits, filters, compatibilities, iterations=iterations, relaxation=relaxation
    )


def infer(*args, **kind) -> np.ndarray:
    """Marginals in float64, [N, K]."""
    with jax.enable_x64(True):
        args = jax.tree.map(functools.partial(np.asarray, dtype=np.float64), args)
        return made.softmax(_infer(*args, **kind))


@pytest.mark.parametrize("relaxation", [1.0, 0.7])
@pytest.mark.parametrize("name", ENERGIES)
def test_marginals_equal_those_of_a_loop(name, relaxation):
    given, energies = ENERGIES[name]
    found = infer(LOGITS, given, relaxation=relaxation)
    expected = made.marginals(LOGITS, SENT, energies, iterations=4, relaxation=relaxation)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    plain = made.softmax(LOGITS)
    assert (found.argmax(1) != plain.argmax(1)).any()
    assert np.abs(found - plain).mean() > 0.03


def test_float32_gives_the_same_marginals_up_to_rounding():
    found = _infer(LOGITS, (2.0, 1.5))
    assert found.dtype == jnp.float32
    expected = made.marginals(LOGITS, SENT, ENERGIES["potts"][1], iterations=4)
    np.testing.assert_allclose(made.softmax(found), expected, atol=1e-5)


def test_a_potts_weight_equals_a_negative_energy_of_equal_labels():
    expected = infer(LOGITS, (2.0, 1.5))
    for given in ((-2 * np.ones(K), -1.5 * np.ones(K)), (-2 * np.eye(K), -1.5 * np.eye(K))):
        np.testing.assert_allclose(infer(LOGITS, given), expected, rtol=1e-9, atol=1e-12)


def test_permuted_labels_give_permuted_marginals():
    order = np.array([3, 0, 4, 1, 2])
    permuted = matrix(0)[np.ix_(order, order)], 1.5
    expected = infer(LOGITS, (matrix(0), 1.5))[:, order]
    np.testing.assert_allclose(infer(LOGITS[:, order], permuted), expected, rtol=1e-9, atol=1e-12)


def test_without_weights_or_iterations_only_the_unary_term_counts():
    np.testing.assert_array_equal(_infer(LOGITS, (0.0, 0.0)), LOGITS)
    np.testing.assert_array_equal(_infer(LOGITS, (2.0, 1.5), iterations=0), LOGITS)
    np.testing.assert_allclose(
        infer(LOGITS, (2.0, 1.5), iterations=0, relaxation=0.7), made.softmax(LOGITS), rtol=1e-9
    )


@pytest.mark.parametrize("classes", [1, 2, 8, 9])
def test_any_number_of_labels_works(classes):
    logits = made.scores(SIZE, classes).reshape(N, classes)
    energies = [made.potts(2, classes), made.potts(1.5, classes)]
    expected = made.marginals(logits, SENT, energies, iterations=4)
    np.testing.assert_allclose(infer(logits, (2.0, 1.5)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("relaxation", [1.0, 0.7])
def test_an_impossible_label_stays_impossible_with_a_finite_gradient(relaxation):
    logits = LOGITS.copy()
    logits[:, 2] = -np.inf
    given = jnp.asarray(matrix(0), jnp.float32), 1.5

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(logits):
        found = jax.nn.softmax(_infer(logits, given, relaxation=relaxation))
        return found[:, 0].sum(), found

    (_, found), gradient = run(logits)
    assert found[:, 2].max() < 1e-37
    assert found.sum(1) == pytest.approx(1)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("relaxation", [1.0, 0.7])
@pytest.mark.parametrize("name", ENERGIES)
def test_gradients_through_all_iterations_are_finite_differences(name, relaxation):
    with jax.enable_x64(True):
        (first, second), _ = ENERGIES[name]
        at = {"logits": LOGITS, "first": first, "second": second}
        at = {key: np.asarray(value, np.float64) for key, value in at.items()}
        toward = made.scores(SIZE, K, seed=7).reshape(N, K).astype(np.float64)

        @jax.jit
        def loss(logits, first, second):
            return jnp.vdot(
                toward, jax.nn.softmax(_infer(logits, (first, second), relaxation=relaxation))
            )

        gradients = jax.jit(jax.grad(lambda at: loss(**at)))(at)
        assert made.along(gradients) == pytest.approx(made.slopes(loss, at), rel=1e-6)


def test_probabilities_below_the_clip_are_raised_to_it():
    given = jnp.array([[1.0, 0.0, 1e-7], [0.5, 0.3, 2e-5]])
    expected = np.log([[1, 1e-5, 1e-5], [0.5, 0.3, 2e-5]])
    np.testing.assert_allclose(mean_field.logits_of_probabilities(given), expected, rtol=1e-5)
    assert mean_field.logits_of_probabilities(jnp.zeros(2), clip=0.1) == pytest.approx(np.log(0.1))


def test_hard_labels_get_the_given_certainty():
    label = jnp.array([[2, 0, VOID]], jnp.uint8)
    found = mean_field.logits_of_labels(label, 4, 0.7)
    assert found.shape == (1, 3, 4)
    assert found.dtype == jnp.float32
    expected = np.log([[0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1], [1] * 4])
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
