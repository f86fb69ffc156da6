import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses
from segjax.data.spec import VOID
from segjax.models import resize
from segjax.models.features import Scores
from segjax.models.resize import Resize

K = 3
WEIGHTS = (0.5, 1.0, 3.0)


def random_scores(size: tuple[int, int] = (4, 5), seed: int = 0, batch: int = 2) -> Scores:
    values = np.random.default_rng(seed).normal(0, 3, (batch, *size, K)).astype(np.float32)
    return Scores(jnp.asarray(values), Resize("half_pixel", 4))


def random_label(size: tuple[int, int], seed: int = 0, batch: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, K, (batch, *size)).astype(np.uint8)
    label[rng.random(label.shape) < 0.3] = VOID
    return label


def in_float64(logits: np.ndarray, label: np.ndarray, weights=None) -> tuple[float, np.ndarray]:
    """Summed cross-entropy and its gradient by the logits."""
    logits = np.asarray(logits, np.float64)
    weights = np.ones(logits.shape[-1]) if weights is None else np.asarray(weights, np.float64)
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    share = exp / exp.sum(-1, keepdims=True)
    target = np.where(label == VOID, 0, label)
    factor = np.where(label == VOID, 0, weights[target])
    loss = -np.log(np.take_along_axis(share, target[..., None], -1)[..., 0])
    one_hot = np.eye(logits.shape[-1])[target]
    return float((loss * factor).sum()), (share - one_hot) * factor[..., None]


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[[[1.0, 1.0, 2.0], [1.0, 2.0, 1.0], [5.0, 5.0, 90.0]]]]))
    label = jnp.array([[[2, 0, VOID]]], jnp.uint8)
    total, count = losses.cross_entropy(logits, label)
    assert total == pytest.approx(np.log(2) + np.log(4))
    assert count == 2
    weights = jnp.array([3.0, 1.0, 0.5])
    total, count = losses.cross_entropy(logits, label, weights)
    assert total == pytest.approx(0.5 * np.log(2) + 3 * np.log(4))
    assert count == 2


@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 4.0)])
def test_cross_entropy_and_its_gradient_are_those_of_float64(weights):
    logits = np.random.default_rng(0).normal(0, 30, (2, 6, 7, K)).astype(np.float32)
    label = random_label((6, 7))
    given = None if weights is None else jnp.array(weights)

    def run(logits):
        return losses.cross_entropy(logits, jnp.asarray(label), given)

    (total, count), gradient = jax.value_and_grad(run, has_aux=True)(jnp.asarray(logits))
    expected, expected_gradient = in_float64(logits, label, weights)
    assert total == pytest.approx(expected, rel=1e-6)
    assert count == (label != VOID).sum()
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)
    assert not np.asarray(gradient)[label == VOID].any()


def test_logits_of_bfloat16_are_summed_in_float32():
    logits = jnp.full((1, 64, 64, K), 0.1, jnp.bfloat16)
    total, count = losses.cross_entropy(logits, jnp.zeros((1, 64, 64), jnp.uint8))
    assert total.dtype == count.dtype == jnp.float32
    assert count == 64 * 64  # bfloat16 counts to 256
    assert total == pytest.approx(64 * 64 * np.log(K), rel=1e-5)


@pytest.fixture(scope="module")
def by_blocks():
    """fn(size, blocks) -> loss, count and gradient of random scores and labels of that size."""

    @functools.cache
    def run(size, blocks):
        label = jnp.asarray(random_label(size))

        def total(values):
            scores = Scores(values, Resize("half_pixel", 4))
            weights = jnp.array(WEIGHTS)
            return losses.total(
                (scores,), label, class_weights=weights, aux_weight=0.0, blocks=blocks
            )

        values = random_scores((-(-size[0] // 4), -(-size[1] // 4))).values
        (loss, count), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(values)
        return float(loss), float(count), np.asarray(gradient)

    return run


@pytest.mark.parametrize("size", [(16, 20), (13, 18), (1, 1)])
@pytest.mark.parametrize("blocks", [1, 3, 8, 1000])
def test_the_loss_does_not_depend_on_the_number_of_blocks(by_blocks, size, blocks):
    label = random_label(size)
    scores = random_scores((-(-size[0] // 4), -(-size[1] // 4)))
    rows, cols = scores.matrices(size)
    logits = np.einsum("Hh,bhwk,Ww->bHWk", rows, np.asarray(scores.values), cols)
    expected, at_pixels = in_float64(logits, label, WEIGHTS)
    expected_gradient = np.einsum("Hh,bHWk,Ww->bhwk", rows, at_pixels, cols)

    loss, count, gradient = by_blocks(size, blocks)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert count == (label != VOID).sum()
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


@pytest.mark.parametrize("height", [12, 13, 1])
@pytest.mark.parametrize("blocks", [1, 5, 1000])
def test_rows_come_back_in_order(height, blocks):
    label = random_label((height, 6))
    scores = random_scores((-(-height // 4), 2))

    def fn(logits, label):
        return jnp.argmax(logits, -1), label

    found = losses.over_row_blocks(fn, scores, jnp.asarray(label), blocks=blocks)
    best, back = (losses.join_rows(x, height) for x in found)
    np.testing.assert_array_equal(back, label)
    logits = resize.apply(scores.values, *scores.matrices((height, 6)))
    np.testing.assert_array_equal(best, jnp.argmax(logits, -1))


def test_every_block_has_rows_from_the_whole_height():
    """So that each device that holds a strip of the image has its part of every block."""
    label = jnp.broadcast_to(jnp.arange(12, dtype=jnp.uint8)[:, None], (1, 12, 2))
    found = losses.over_row_blocks(lambda _, label: label, random_scores(), label, blocks=4)
    np.testing.assert_array_equal(found[:, 0, :, 0], [[i, i + 4, i + 8] for i in range(4)])


def test_scores_seen_at_another_size_are_brought_to_the_label():
    label = random_label((20, 24))
    scores = random_scores((3, 3))
    found = losses.over_row_blocks(
        lambda logits, _: logits, scores, jnp.asarray(label), blocks=5, seen=(10, 12)
    )
    logits = found.transpose(1, 2, 0, 3, 4).reshape(2, 20, 24, K)
    expected = resize.apply(scores.values, *scores.matrices((20, 24), (10, 12)))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_batch_of_void_has_no_loss_and_no_gradient():
    label = jnp.full((2, 13, 18), VOID, jnp.uint8)

    def mean(values):
        scores = Scores(values, Resize("half_pixel", 4))
        loss, count = losses.total((scores,), label, class_weights=None, aux_weight=0.0, blocks=3)
        return loss / losses.divisor("mean_valid", count)

    loss, gradient = jax.value_and_grad(mean)(random_scores((4, 5)).values)
    assert loss == 0
    assert not np.asarray(gradient).any()
    assert np.isfinite(gradient).all()


def test_further_outputs_count_by_their_weight_and_not_in_the_divisor():
    label = jnp.asarray(random_label((13, 18)))
    first, second = random_scores((4, 5), seed=1), random_scores((2, 3), seed=2)
    options = {"class_weights": None, "blocks": 4}
    one, count = losses.total((first,), label, aux_weight=0.4, **options)
    two, _ = losses.total((second,), label, aux_weight=0.4, **options)
    both, count_of_both = losses.total((first, second), label, aux_weight=0.4, **options)
    assert both == pytest.approx(float(one + 0.4 * two), rel=1e-6)
    assert count_of_both == count


def test_reductions_divide_by_the_valid_pixels_or_not_at_all():
    assert losses.divisor("mean_valid", jnp.float32(7)) == 7
    assert losses.divisor("mean_valid", jnp.float32(0)) == 1
    assert losses.divisor("sum", jnp.float32(7)) == 1


def test_blocks_bound_the_memory_of_a_step():
    label = jax.ShapeDtypeStruct((1, 512, 512), jnp.uint8)
    values = jax.ShapeDtypeStruct((1, 64, 64, 19), jnp.float32)

    def temporary(blocks):
        def total(values, label):
            scores = Scores(values, Resize("half_pixel", 8))
            return losses.total(
                (scores,), label, class_weights=None, aux_weight=0.0, blocks=blocks
            )[0]

        compiled = jax.jit(jax.grad(total)).lower(values, label).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    plain = temporary(1)
    assert plain >= 512 * 512 * 19 * 4  # at least the scores at full size
    assert temporary(8) < plain / 4


@pytest.mark.parametrize(
    ("how", "size_in", "size_out", "expected"),
    [
        (Resize("half_pixel"), 4, 32, [4, 12, 20, 28]),
        (Resize("half_pixel", 8, -3.5), 4, 25, [7, 15, 23, 24]),
        (Resize("half_pixel", 8, 3.5), 4, 25, [0, 8, 16, 24]),  # DeepLab's: pure sub-sampling
        (Resize("corners"), 4, 25, [0, 8, 16, 24]),
        (Resize("corners", 8), 4, 23, [0, 8, 16, 22]),
        (Resize("transposed", 4), 3, 16, [4, 8, 12]),
        (Resize("corners"), 1, 9, [0]),
        (Resize("half_pixel"), 1, 1, [0]),
    ],
)
def test_every_score_knows_its_pixel(how, size_in, size_out, expected):
    np.testing.assert_array_equal(how.centres(size_in, size_out), expected)


def test_at_the_scores_each_output_is_held_against_the_label_at_its_own_places():
    label = random_label((9, 17))
    fine = random_scores((9, 17)).replace(resize=Resize("corners"))
    coarse = random_scores((3, 5), seed=1).replace(resize=Resize("corners"))
    total, count = losses.total(
        (fine, coarse),
        jnp.asarray(label),
        class_weights=None,
        aux_weight=0.5,
        blocks=4,
        at="scores",
    )
    of_fine, _ = in_float64(fine.values, label)
    of_coarse, _ = in_float64(coarse.values, label[:, ::4, ::4])
    assert count == (label != VOID).sum()
    assert total == pytest.approx(of_fine + 0.5 * (9 * 17) / (3 * 5) * of_coarse, rel=1e-5)
