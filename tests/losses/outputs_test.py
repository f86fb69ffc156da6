"""Several outputs, terms and parts of a batch: each has its own count, as by hand in float64."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import losses, sharding
from segjax.data.spec import VOID
from segjax.models.features import Scores
from segjax.models.resize import Resize
from tests.losses import made

SIZE = (12, 20)
GRIDS = ((12, 20), (6, 10))  # of the prediction and of an auxiliary head
AUX, ALSO = 0.4, 0.5
COUNTED_BY_IMAGE = ("dice", "lovasz_softmax")
REDUCTIONS = (("mean_valid", made.WEIGHTS), ("mean_weighted", made.WEIGHTS), ("sum", None))


def outputs() -> tuple[Scores, ...]:
    return tuple(
        made.random_scores(grid, seed=i, batch=4).replace(
            resize=Resize("half_pixel", 12 // grid[0])
        )
        for i, grid in enumerate(GRIDS)
    )


def label() -> np.ndarray:
    """Void in unequal shares: of one image all but a corner, which coarse grids miss."""
    made_label = made.random_label(SIZE, seed=5, batch=4)
    made_label[1, 6:] = VOID
    made_label[2] = VOID
    made_label[2, 0, 0] = 1
    return made_label


def at_pixels(scores: Scores, label: np.ndarray, at: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits in float64 and the label that they are compared with."""
    values = np.asarray(scores.values, np.float64)
    if at == "scores":
        return values, np.asarray(scores.sample(label))
    rows, cols = scores.matrices(SIZE)
    return np.einsum("Hh,bhwk,Ww->bHWk", rows, values, cols), label


def by_hand(name: str, parts: list, reduction: str, weights) -> tuple[float, float]:
    """The sum and the count of one term at one output, over (logits, label) of every part."""
    total = count = 0.0
    for logits, truth in parts:
        total += made.formula(name)(logits, truth, weights)
        if name in COUNTED_BY_IMAGE:
            count += (truth != VOID).any((1, 2)).sum()
        else:
            kept = made.hard(logits, truth) if name == "ohem" else truth
            each = np.ones(made.K) if reduction != "mean_weighted" else np.asarray(weights)
            count += each[kept[kept != VOID]].sum()
    return total, count


def expected_mean(names: tuple, at: str, reduction: str, weights, parts: int) -> float:
    means, counts = [], []
    for scores, share in zip(outputs(), (1, AUX), strict=True):
        logits, truth = at_pixels(scores, label(), at)
        pieces = [(logits[i::parts], truth[i::parts]) for i in range(parts)]
        for name, weight in zip(names, (1, ALSO), strict=True):
            total, count = by_hand(name, pieces, reduction, weights)
            means.append(share * weight * total / count)
            counts.append(count)
    return sum(means) * (counts[0] if reduction == "sum" else 1)


def mean_over_parts(loss: losses.Loss, parts: int) -> Callable:
    """(outputs, label) -> mean: as a training step does it, each part with the counts of all."""

    def mean(outputs, label):
        def part(i):
            return tuple(s.replace(values=s.values[i::parts]) for s in outputs), label[i::parts]

        counts = sum(loss.counts(*part(i)) for i in range(parts))
        pairs = [loss.total(*part(i), counts) for i in range(parts)]
        return sum(p[0] for p in pairs) / loss.divisor(sum(p[1] for p in pairs))

    return mean


@pytest.mark.parametrize("at", losses.PLACES)
@pytest.mark.parametrize("name", losses.LOSSES)
def test_each_output_and_term_has_its_own_mean_whatever_the_parts(name, at):
    also = "cross_entropy" if name in COUNTED_BY_IMAGE else "dice"
    for (reduction, weights), parts in zip(REDUCTIONS, (2, 1, 2), strict=True):
        if reduction == "mean_weighted" and name in COUNTED_BY_IMAGE:
            continue
        options = {"class_weights": weights, "reduction": reduction, "at": at}
        loss = losses.build(name=name, also=((also, ALSO),), aux_weight=AUX, blocks=2, **options)
        mean = jax.jit(mean_over_parts(loss, parts))(outputs(), jnp.asarray(label()))
        expected = expected_mean((name, also), at, reduction, weights, parts)
        assert mean == pytest.approx(expected, rel=2e-6), (reduction, parts)


@pytest.mark.parametrize("name", ["cross_entropy", "lovasz_softmax"])
def test_the_gradient_of_the_parts_is_that_of_the_batch(name):
    options = {"class_weights": made.WEIGHTS, "at": "scores", "aux_weight": AUX}
    loss = losses.build(name=name, also=(("dice", ALSO),), **options)
    one, two = (
        jax.jit(jax.grad(mean_over_parts(loss, parts)))(outputs(), jnp.asarray(label()))
        for parts in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(b.values, a.values, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["ohem", "dice"])
def test_auxiliary_outputs_over_devices_have_the_loss_of_one_device(name):
    loss = losses.build(class_weights=None, name=name, also=(("cross_entropy", 1.0),), at="scores")
    mesh = sharding.make_mesh(1, jax.devices()[:4])
    place = sharding.batch_sharding(mesh, "image")
    many = jax.device_put((outputs(), jnp.asarray(label())), place)
    one, over_devices = (jax.jit(loss.total)(*x) for x in ((outputs(), label()), many))
    np.testing.assert_allclose(over_devices, one, rtol=1e-6)


def test_an_output_counts_where_the_first_has_no_place_of_its_own():
    """Hard pixels there are none of, and the added mean is not lost with them."""
    options = {"ohem_threshold": 0.0, "ohem_share": 0.0, "class_weights": None}
    loss = losses.build(name="ohem", also=(("dice", ALSO),), **options)
    total, count = loss.total(outputs()[:1], jnp.asarray(label()))
    assert count == 0
    expected = made.dice(*at_pixels(outputs()[0], label(), "image")) / 4
    assert total / loss.divisor(count) == pytest.approx(ALSO * expected, rel=1e-5)
