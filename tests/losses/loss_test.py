import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses, sharding
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.models.features import Scores
from segjax.models.resize import Resize
from tests.losses import made

OF_PIXELS = ("cross_entropy", "ohem", "focal", made.USERS)


def loss_of(outputs, label, **options):
    return losses.build(**{"class_weights": None} | options).total(outputs, label)


@pytest.fixture(scope="module")
def by_blocks():
    """fn(size, blocks) -> loss, count and gradient of random scores and labels of that size."""

    @functools.cache
    def run(size, blocks):
        label = jnp.asarray(made.random_label(size))

        def total(values):
            scores = Scores(values, Resize("half_pixel", 4))
            return loss_of((scores,), label, class_weights=made.WEIGHTS, blocks=blocks)

        values = made.random_scores((-(-size[0] // 4), -(-size[1] // 4))).values
        (loss, count), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(values)
        return float(loss), float(count), np.asarray(gradient)

    return run


@pytest.mark.parametrize("size", [(16, 20), (13, 18), (1, 1)])
@pytest.mark.parametrize("blocks", [1, 3, 8, 1000])
def test_the_loss_does_not_depend_on_the_number_of_blocks(by_blocks, size, blocks):
    label = made.random_label(size)
    scores = made.random_scores((-(-size[0] // 4), -(-size[1] // 4)))
    rows, cols = scores.matrices(size)
    logits = np.einsum("Hh,bhwk,Ww->bHWk", rows, np.asarray(scores.values), cols)
    expected = made.cross_entropy(logits, label, made.WEIGHTS)
    at_pixels = made.cross_entropy_gradient(logits, label, made.WEIGHTS)
    expected_gradient = np.einsum("Hh,bHWk,Ww->bhwk", rows, at_pixels, cols)

    loss, count, gradient = by_blocks(size, blocks)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert count == (label != VOID).sum()
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


@pytest.mark.parametrize("name", made.EVERY)
def test_a_batch_of_void_has_no_loss_and_no_gradient(name):
    label = jnp.full((2, 13, 18), VOID, jnp.uint8)

    def mean(values):
        scores = Scores(values, Resize("half_pixel", 4))
        loss = losses.build(class_weights=None, name=name, blocks=3)
        total, count = loss.total((scores,), label)
        return total / loss.divisor(count)

    loss, gradient = jax.jit(jax.value_and_grad(mean))(made.random_scores((4, 5)).values)
    assert loss == 0
    assert not np.asarray(gradient).any()
    assert np.isfinite(gradient).all()


def test_further_outputs_count_by_their_weight_and_have_their_own_divisor():
    label = jnp.asarray(made.random_label((13, 18)))
    first, second = made.random_scores((4, 5), seed=1), made.random_scores((2, 3), seed=2)
    one, count = loss_of((first,), label, aux_weight=0.4, blocks=4)
    two, _ = loss_of((second,), label, aux_weight=0.4, blocks=4)
    both, count_of_both = loss_of((first, second), label, aux_weight=0.4, blocks=4)
    assert both == pytest.approx(float(one + 0.4 * two), rel=1e-6)
    assert count_of_both == count


def test_reductions_divide_by_the_valid_pixels_their_weights_or_nothing():
    for reduction, of_0, of_7 in (("mean_valid", 1, 7), ("mean_weighted", 1, 7), ("sum", 1, 1)):
        loss = losses.build(class_weights=None, reduction=reduction)
        assert loss.divisor(jnp.float32(0)) == of_0
        assert loss.divisor(jnp.float32(7)) == of_7


@pytest.mark.parametrize("name", OF_PIXELS)
def test_segnets_mean_leaves_the_weights_out_of_the_divisor_and_pytorchs_does_not(name):
    """sum(w nll) / n in the release of SegNet; sum(w nll) / sum(w) in torch.nn.CrossEntropyLoss."""
    logits = made.random_scores((6, 7)).replace(resize=Resize("half_pixel", 1))
    label = made.random_label((6, 7))
    options = {"class_weights": made.WEIGHTS, "name": name, "ohem_share": 1.0}
    total, pixels = loss_of((logits,), jnp.asarray(label), **options)
    again, weight = loss_of((logits,), jnp.asarray(label), reduction="mean_weighted", **options)
    assert again == total
    assert pixels == (label != VOID).sum()
    assert weight == np.take(made.WEIGHTS, label[label != VOID]).sum()


def test_blocks_bound_the_memory_of_a_step():
    label = jax.ShapeDtypeStruct((1, 512, 512), jnp.uint8)
    values = jax.ShapeDtypeStruct((1, 64, 64, 19), jnp.float32)

    def temporary(blocks, name):
        def total(values, label):
            scores = Scores(values, Resize("half_pixel", 8))
            return loss_of((scores,), label, blocks=blocks, name=name)[0]

        compiled = jax.jit(jax.grad(total)).lower(values, label).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    full = 512 * 512 * 19 * 4  # bytes of the scores at full size
    assert temporary(1, "cross_entropy") >= full
    assert temporary(8, "cross_entropy") < temporary(1, "cross_entropy") / 4
    for name in made.EVERY[1:]:
        assert temporary(8, name) < full


def test_at_the_scores_each_output_is_held_against_the_label_at_its_own_places():
    label = made.random_label((9, 17))
    fine = made.random_scores((9, 17)).replace(resize=Resize("corners"))
    coarse = made.random_scores((3, 5), seed=1).replace(resize=Resize("corners"))
    total, count = loss_of((fine, coarse), jnp.asarray(label), aux_weight=0.5, at="scores")
    of_fine = made.cross_entropy(fine.values, label)
    of_coarse = made.cross_entropy(coarse.values, label[:, ::4, ::4])
    assert count == (label != VOID).sum()
    mean = of_fine / count + 0.5 * of_coarse / (label[:, ::4, ::4] != VOID).sum()
    assert total / count == pytest.approx(float(mean), rel=1e-5)


@pytest.mark.parametrize("name", made.EVERY)
def test_every_loss_is_its_formula_of_what_is_brought_to_the_image(name):
    """Scores are upsampled, and the blocks do not divide the height."""
    label = made.random_label((13, 18))
    scores = made.random_scores((4, 5))
    rows, cols = scores.matrices((13, 18))
    logits = np.einsum("Hh,bhwk,Ww->bHWk", rows, np.asarray(scores.values), cols)
    total, count = loss_of((scores,), jnp.asarray(label), name=name, blocks=4)
    assert total == pytest.approx(made.formula(name)(logits, label), rel=1e-5)
    if name in ("dice", "lovasz_softmax"):
        assert count == 2  # images
    at_places, _ = loss_of((scores,), jnp.asarray(label), name=name, at="scores")
    sampled = np.asarray(scores.sample(label))
    expected = made.formula(name)(np.asarray(scores.values), sampled)
    assert at_places == pytest.approx(expected, rel=1e-5)


def test_further_losses_are_means_of_their_own_added_to_the_mean():
    label, scores = jnp.asarray(made.random_label((13, 18))), made.random_scores((4, 5))

    def mean(**options):
        loss = losses.build(class_weights=made.WEIGHTS, **options)
        total, count = loss.total((scores,), label)
        return float(total / loss.divisor(count))

    parts = [mean(name=name) for name in ("cross_entropy", "dice", "ohem")]
    both = mean(name="cross_entropy", also=(("dice", 0.5), ("ohem", 2.0)))
    assert both == pytest.approx(parts[0] + 0.5 * parts[1] + 2 * parts[2], rel=1e-5)


@pytest.mark.parametrize("name", made.EVERY)
def test_a_batch_over_devices_and_strips_has_the_loss_of_one_device(name):
    mesh = sharding.make_mesh(2, jax.devices()[:8])
    label, values = (
        made.random_label((16, 20), batch=4),
        made.random_scores((16, 20), batch=4).values,
    )

    @jax.jit
    def run(values, label):
        def total(values):
            scores = Scores(values, Resize("half_pixel", 1))
            return loss_of((scores,), label, name=name, class_weights=made.WEIGHTS, blocks=4)

        return jax.value_and_grad(total, has_aux=True)(values)

    placed = [
        jax.device_put(x, sharding.batch_sharding(mesh, key))
        for key, x in (("image", values), ("label", label))
    ]
    (one, count), slope = run(values, label)
    (many, count_of_many), slope_of_many = run(*placed)
    assert count_of_many == count
    assert many == pytest.approx(float(one), rel=1e-6)
    np.testing.assert_allclose(slope_of_many, slope, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "cross_entropi"}, "config.loss.name.*'cross_entropi'.*lovasz_softmax"),
        ({"also": (("dise", 1.0),)}, "config.loss.also.*'dise'.*dice"),
        ({"also": ("dice", 1.0)}, "config.loss.also.*pairs"),
        ({"reduction": "mean"}, "config.loss.reduction.*'mean'.*mean_valid, mean_weighted, sum"),
        ({"reduction": "mean_weighted", "name": "dice"}, "mean_weighted.*not for dice"),
        ({"at": "pixels"}, "config.loss.at.*'pixels'.*image, scores"),
        (
            {"name": "dice", "region_classes": "some"},
            "config.loss.region_classes.*'some'.*present, all",
        ),
        ({"blocks": 0}, "config.loss.blocks.*0"),
        ({"name": "focal", "focal_gamma": -1.0}, "config.loss.focal_gamma.*-1"),
        ({"name": "ohem", "ohem_share": 1.5}, "config.loss.ohem_share.*1.5"),
        ({"label_smoothing": 0.1, "name": "dice"}, "config.loss.label_smoothing.*dice"),
    ],
)
def test_a_loss_that_is_not_known_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        losses.build(class_weights=None, **changes)
