import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from segjax.errors import InputError
from segjax.training import optim

OPTIONS = {
    "name": "sgd",
    "lr": 0.1,
    "schedule": "constant",
    "warmup_steps": 0,
    "power": 0.9,
    "decay": 0.0,
    "step_every": 0,
    "momentum": 0.0,
    "nesterov": False,
    "b2": 0.999,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
    "parts": (),
    "total_steps": 100,
}
PARTS = (("*/bias", 2.0, 0.0), ("head/*", 10.0, 1.0))


def lion(*, momentum: float, b2: float, add_decay: list) -> list[optax.GradientTransformation]:
    """A user's optimiser."""
    return [optax.scale_by_lion(b1=momentum, b2=b2), *add_decay]


def tree(seed: int) -> dict:
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "backbone": {"stage1": {"0": {"conv": {"kernel": draw(3, 2), "bias": draw(2)}}}},
        "head": {"score": {"kernel": draw(2, 4), "bias": draw(4)}},
    }


def build(**changes) -> optim.Optimizer:
    return optim.build(**OPTIONS | changes, params=tree(0))


def walk(optimizer: optim.Optimizer, steps: int) -> list[np.ndarray]:
    """The leaves after `steps` updates from tree(0) along the gradients tree(1), tree(2) ..."""

    @jax.jit
    def update(params, opt_state, grads, step):
        directions, opt_state = optimizer.tx.update(grads, opt_state, params)
        rate = optimizer.schedule(step)
        return jax.tree.map(lambda p, d: p - rate * d, params, directions), opt_state

    params = tree(0)
    opt_state = optimizer.tx.init(params)
    for step in range(steps):
        params, opt_state = update(params, opt_state, tree(step + 1), step)
    return jax.tree.leaves(params)


def leaves(seed: int) -> list[np.ndarray]:
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree(seed))]


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({}, lambda t: 1.0),
        ({"schedule": "poly", "power": 0.9}, lambda t: (1 - t / 100) ** 0.9),
        ({"schedule": "poly", "power": 2.0}, lambda t: (1 - t / 100) ** 2),
        ({"schedule": "cosine"}, lambda t: 0.5 * (1 + math.cos(math.pi * t / 100))),
        ({"schedule": "inverse_time", "decay": 0.05}, lambda t: 1 / (1 + 0.05 * t)),
    ],
)
def test_schedules_follow_their_formulas(changes, factor):
    schedule = build(**changes).schedule
    for step in (0, 1, 37, 99, 100):
        assert schedule(step) == pytest.approx(0.1 * factor(step), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("schedule", ["constant", "poly"])
def test_warm_up_is_linear_and_the_schedule_starts_after_it(schedule):
    rate = build(schedule=schedule, warmup_steps=20).schedule
    for step in range(20):
        assert rate(step) == pytest.approx(0.1 * (step + 1) / 20)
    assert rate(20) == pytest.approx(0.1)
    if schedule == "poly":
        assert rate(60) == pytest.approx(0.1 * 0.5**0.9)
        assert rate(100) == 0


def test_a_step_past_the_end_has_the_last_rate():
    for schedule in ("poly", "cosine"):
        assert build(schedule=schedule).schedule(1000) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_that_of_numpy(momentum, nesterov):
    found = walk(build(momentum=momentum, nesterov=nesterov, weight_decay=0.01), 5)
    params, speed = leaves(0), [0.0] * 4
    for step in range(5):
        for i, gradient in enumerate(leaves(step + 1)):
            gradient = gradient + 0.01 * params[i]
            speed[i] = momentum * speed[i] + gradient
            direction = gradient + momentum * speed[i] if nesterov else speed[i]
            params[i] = params[i] - 0.1 * direction
    for a, b in zip(found, params, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_multipliers_of_all_patterns_that_match_a_path():
    rates, decays = optim.multipliers(tree(0), PARTS)
    conv, score = rates["backbone"]["stage1"]["0"]["conv"], rates["head"]["score"]
    assert (conv["kernel"], conv["bias"], score["kernel"], score["bias"]) == (1, 2, 10, 20)
    conv, score = decays["backbone"]["stage1"]["0"]["conv"], decays["head"]["score"]
    assert (conv["kernel"], conv["bias"], score["kernel"], score["bias"]) == (1, 0, 1, 0)


@pytest.mark.parametrize("name", [*optim.OPTIMIZERS, "tests.training.optim_test:lion"])
def test_multipliers_scale_the_step_and_the_decay_of_their_part(name):
    """Biases at twice the rate without decay, as in the FCN release; a new head at ten times."""
    plain = {"name": name, "momentum": 0.9, "weight_decay": 0.1}
    before = leaves(0)
    undecayed = walk(build(**plain | {"weight_decay": 0.0}), 1)
    with_parts = walk(build(**plain, parts=PARTS), 1)
    # Leaves in order: conv bias, conv kernel, score bias, score kernel.
    for got, p, step, rate, decay in zip(
        with_parts,
        before,
        [np.asarray(a) - b for a, b in zip(undecayed, before, strict=True)],
        (2, 1, 20, 10),
        (0, 1, 0, 1),
        strict=True,
    ):
        expected = p + rate * (step - 0.1 * 0.1 * decay * p)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_multiplier_of_zero_freezes_its_part():
    found = walk(build(momentum=0.9, weight_decay=0.1, parts=(("backbone/*", 0.0, 1.0),)), 3)
    for i, (a, b) in enumerate(zip(found, leaves(0), strict=True)):
        assert (np.abs(a - b).max() == 0) == (i < 2)


def test_adamw_is_that_of_optax():
    found = walk(build(name="adamw", momentum=0.8, b2=0.95, weight_decay=0.05), 4)
    tx = optax.adamw(0.1, b1=0.8, b2=0.95, weight_decay=0.05)
    params = tree(0)
    opt_state = tx.init(params)
    for step in range(4):
        updates, opt_state = tx.update(tree(step + 1), opt_state, params)
        params = optax.apply_updates(params, updates)
    for a, b in zip(found, jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_long_gradients_are_cut_to_the_norm_and_short_ones_kept():
    length = math.sqrt(sum((leaf**2).sum() for leaf in leaves(1)))
    for limit in (0.5 * length, 2 * length):
        found = walk(build(clip_norm=limit, weight_decay=0.01), 1)
        factor = min(1, limit / length)
        for a, p, gradient in zip(found, leaves(0), leaves(1), strict=True):
            expected = p - 0.1 * (factor * gradient + 0.01 * p)  # decay is not part of the norm
            np.testing.assert_allclose(a, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "lamb"}, "config.optim.name.*'lamb'.*sgd, adamw"),
        ({"schedule": "exp"}, "config.optim.schedule.*'exp'.*constant, poly, cosine"),
        ({"parts": (("aux/*", 1.0, 1.0),)}, r"config.optim.parts.*'aux/\*' matches no parameter"),
        ({"parts": (*PARTS, ("bias", 1.0, 1.0))}, "'bias' matches no parameter"),
    ],
)
def test_unknown_names_and_idle_patterns_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)


def test_a_rate_falls_in_steps():
    options = {"schedule": "step", "decay": 0.1, "step_every": 20, "warmup_steps": 10, "lr": 2.0}
    schedule = build(**options).schedule
    got = [float(schedule(step)) for step in (4, 10, 29, 30, 49, 50, 109)]
    np.testing.assert_allclose(got, [1.0, 2.0, 2.0, 0.2, 0.2, 0.02, 2e-4], rtol=1e-5)


def test_steps_of_no_length_are_refused():
    with pytest.raises(InputError, match="step_every is 0; the schedule needs 1 or more"):
        build(schedule="step", decay=0.1)
