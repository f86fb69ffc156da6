"""The training step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import sharding
from segjax.data.spec import VOID
from segjax.training import assembly, state
from tests import tiny

LR = 0.05
QUIET = {  # no augmentation, so that numpy knows what the network saw
    "augment__scale": (1.0, 1.0),
    "augment__flip": 0.0,
    "optim__schedule": "constant",
    "optim__lr": LR,
    "optim__weight_decay": 0.0,  # momentum after the first step is then the gradient
}


def run(training: assembly.Training, step, ts: state.TrainState, *batches: dict):
    """The state after these batches, and each step's scalars; `ts` stays alive."""
    ts = jax.tree.map(lambda x: x + 0, ts)
    found = []
    for batch in batches:
        ts, scalars = step(ts, sharding.put_batch(training.mesh, batch))
        found.append(jax.device_get(scalars))
    return ts, found


@pytest.fixture(scope="module")
def deep():
    """FCN-8s, batch norm, dropout and averaged weights: fn(devices, space) -> training, step."""

    @functools.cache
    def compiled(devices: int, space: int, options: tuple = ()):
        training = tiny.assemble(tiny.deep_config(mesh__space=space, ema_decay=0.9), devices)
        rows = sharding.put_batch(training.mesh, tiny.batch(0))
        lowered = training.step.lower(training.state_shapes(), rows)
        return training, lowered.compile(compiler_options=dict(options))

    return compiled


@pytest.fixture(scope="module")
def reference(deep):
    """fn(options) -> the state and the scalars of a step on one device. Batch: see `tiny.awake`."""

    @functools.cache
    def step_of(options: tuple = ()):
        training, step = deep(1, 1, options)
        ts, (scalars,) = run(training, step, tiny.awake_state(training), tiny.batch(5))
        return jax.device_get(ts), scalars

    return step_of


# As users compile it, so that fusions round as they do: three quarters of the time. In the fast
# suite layers_test and pooling_test do it, on the layers that rounding has broken.
AS_USERS = tuple(tiny.OPTIMISED.items())


@pytest.mark.parametrize(
    ("devices", "space", "options"),
    [(4, 2, ()), *(pytest.param(8, n, AS_USERS, marks=pytest.mark.slow) for n in (1, 2))],
)
def test_a_step_on_many_devices_is_the_step_on_one(deep, reference, devices, space, options):
    """With void in unequal shares, batch norm, dropout, and the image's height split over space."""
    training, step = deep(devices, space)
    ts, (scalars,) = run(training, step, tiny.awake_state(training), tiny.batch(5))
    expected, expected_scalars = reference(options)
    tiny.assert_close(ts.params, expected.params)
    tiny.assert_close(ts.batch_stats, expected.batch_stats)
    tiny.assert_close(ts.opt_state, expected.opt_state)
    tiny.assert_close(ts.ema, expected.ema)
    tiny.assert_close(scalars, expected_scalars)
    assert ts.step == 1
    for leaf in jax.tree.leaves(ts):
        assert leaf.sharding.is_fully_replicated


def test_a_step_reaches_every_weight(deep, reference):
    training, _ = deep(1, 1)
    before, after = tiny.by_name(tiny.awake_state(training)), tiny.by_name(reference()[0])
    for name in before:
        if name != "skipped":
            assert (before[name] != after[name]).any(), name


def test_training_twice_gives_the_same_bits(deep):
    training, step = deep(1, 1)
    batches = [tiny.batch(seed) for seed in range(3)]
    first, scalars = run(training, step, training.initial_state(), *batches)
    again, scalars_again = run(training, step, training.initial_state(), *batches)
    tiny.assert_same_bits(again, first)
    assert scalars == scalars_again


def test_dropout_changes_from_step_to_step(deep):
    training, step = deep(1, 1)
    ts = tiny.awake_state(training)
    later = ts.replace(step=ts.step + 1)
    losses = [run(training, step, x, tiny.batch(0))[1][0]["loss"] for x in (ts, later)]
    assert losses[0] != losses[1]


@pytest.fixture(scope="module")
def short():
    """The short network without batch norm or dropout: fn(**config) -> training."""

    @functools.cache
    def assemble(**changes):
        return tiny.assemble(tiny.short_config(**QUIET | changes))

    return assemble


def one_step(training, batch=None, ts=None):
    batch = tiny.batch(0) if batch is None else batch
    ts = tiny.awake_state(training) if ts is None else ts
    ts, (scalars,) = run(training, training.step, ts, batch)
    return ts, scalars


def momentum_of(ts: state.TrainState) -> dict:
    """The tree like the parameters in the optimiser's state."""

    def like_params(tree) -> bool:
        return isinstance(tree, dict) and tree.keys() == ts.params.keys()

    (found,) = filter(like_params, jax.tree.leaves(ts.opt_state, is_leaf=like_params))
    return found


def test_parts_of_a_batch_add_up_to_the_whole(short):
    expected, scalars = one_step(short())
    ts, found = one_step(short(accumulate=4))
    tiny.assert_close(ts.params, expected.params)
    tiny.assert_close(ts.opt_state, expected.opt_state)
    tiny.assert_close(found, scalars)


def test_parts_add_up_where_every_output_and_term_has_its_own_count():
    aux = {"name": "conv", "width": 4, "norm": {"name": "none"}, "stage": "stage3", "dropout": 0.0}
    several = {"model__aux": aux, "loss__at": "scores", "loss__also": (("dice", 0.5),)}
    whole, parts = (
        tiny.assemble(tiny.short_config(**QUIET, **several, accumulate=n)) for n in (1, 4)
    )
    expected, scalars = one_step(whole)
    ts, of_parts = one_step(parts)
    tiny.assert_close(ts.params, expected.params)
    tiny.assert_close(ts.opt_state, expected.opt_state)
    tiny.assert_close(of_parts, scalars)


def test_a_sum_is_the_mean_times_the_valid_pixels(short):
    mean, mean_scalars = one_step(short())
    total, sum_scalars = one_step(short(loss__reduction="sum"))
    valid = (tiny.batch(0)["label"] != VOID).sum()
    scaled = jax.tree.map(lambda x: x * valid, mean.opt_state)
    tiny.assert_close(total.opt_state, scaled)
    assert sum_scalars["loss"] == pytest.approx(mean_scalars["loss"] * valid, rel=1e-5)
    assert mean_scalars["valid"] == pytest.approx(valid / tiny.batch(0)["label"].size)


def test_the_gradient_is_the_slope_of_the_loss(short):
    training = short()
    start = tiny.awake_state(training)
    ts, scalars = one_step(training, ts=start)
    gradient = momentum_of(ts)
    length = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient)))
    assert scalars["grad_norm"] == pytest.approx(length, rel=1e-5)

    def loss_at(distance):
        moved = jax.tree.map(lambda p, g: p + distance * g / length, start.params, gradient)
        return one_step(training, ts=start.replace(params=moved))[1]["loss"]

    slope = (loss_at(0.01) - loss_at(-0.01)) / 0.02
    assert slope == pytest.approx(length, rel=5e-3)


def test_weights_move_against_the_gradient_and_biases_twice_as_far(short):
    training = short()
    start = tiny.awake_state(training)
    ts, scalars = one_step(training, ts=start)
    gradient = momentum_of(ts)
    assert scalars["lr"] == pytest.approx(LR)
    before, after, speed = map(tiny.by_name, (start.params, ts.params, gradient))
    for name in before:
        rate = 2 * LR if name.endswith("bias") else LR
        expected = before[name] - rate * speed[name]
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)


def broken(params: dict, how: str) -> dict:
    """Weights that give a nan; finite ones whose loss overflows; or only the gradient does."""
    head = params["head"]
    if how == "gradient":
        stem = params["backbone"]["stem"]
        steep = stem | {"kernel": stem["kernel"] * 1e30}
        scores = {name: jax.tree.map(jnp.zeros_like, part) for name, part in head.items()}
        return params | {"backbone": params["backbone"] | {"stem": steep}, "head": scores}
    kernel = head["score_top"]["kernel"]
    bad = kernel.at[0, 0, 0, 0].set(jnp.nan) if how == "nan" else kernel * 1e38
    return params | {"head": head | {"score_top": head["score_top"] | {"kernel": bad}}}


@pytest.mark.parametrize("how", ["nan", "loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(short, how):
    training = short(ema_decay=0.9, optim__schedule="poly", total_steps=100)
    start = tiny.awake_state(training)
    bad = start.replace(step=start.step + 6, params=broken(start.params, how))
    ts, scalars = run(training, training.step, bad, tiny.batch(0), tiny.batch(1))
    assert ts.step == 8
    assert ts.skipped == 2
    assert [s["skipped"] for s in scalars] == [1, 2]
    assert np.isfinite([s["loss"] for s in scalars]).all() == (how == "gradient")
    tiny.assert_same_bits(ts.replace(step=bad.step, skipped=bad.skipped), bad)
    # Whole weights again: the count starts anew, and the schedule has gone on.
    ts, (scalars,) = run(training, training.step, ts.replace(params=start.params), tiny.batch(0))
    assert ts.skipped == scalars["skipped"] == 0
    assert ts.step == 9
    assert scalars["lr"] == pytest.approx(LR * (1 - 8 / 100) ** 0.9)


def test_averaged_weights_follow_their_formula(short):
    training = short(ema_decay=0.15)
    start = tiny.awake_state(training)
    average = tiny.by_name(start.ema["params"])
    ts = start
    for step in range(3):
        ts, _ = run(training, training.step, ts, tiny.batch(step))
        decay = min(0.15, (1 + step) / (10 + step))
        now = tiny.by_name(ts.params)
        average = {name: decay * old + (1 - decay) * now[name] for name, old in average.items()}
        tiny.assert_close(ts.ema["params"], average)
    assert training.initial_state().ema["params"].keys() == ts.ema["params"].keys()


def test_bfloat16_computes_near_float32_and_keeps_float32_weights(short):
    expected, scalars = one_step(short())
    ts, found = one_step(short(dtype="bfloat16"))
    for leaf in jax.tree.leaves((ts.params, ts.batch_stats, ts.opt_state)):
        assert leaf.dtype == jnp.float32
    assert found["loss"] != scalars["loss"]
    assert found["loss"] == pytest.approx(scalars["loss"], rel=0.02)
    assert found["grad_norm"] == pytest.approx(scalars["grad_norm"], rel=0.1)
    tiny.assert_close(ts.params, expected.params, 0.05)


COLOURS = ("brightness", "contrast", "saturation", "hue")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_lowers_for_accelerators_from_a_cpu_host(dtype):
    training = tiny.assemble(tiny.config(dtype=dtype, **{f"augment__{n}": 0.1 for n in COLOURS}))
    batch = sharding.put_batch(training.mesh, tiny.batch(0))
    computed = {"float32": "xf32", "bfloat16": "xbf16"}[dtype]
    traced = training.step.trace(training.state_shapes(), batch)
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        assert len(convolutions) >= 13 + 1 + 3, platform  # fc6 is one, as on no CPU
        assert all(computed in line for line in convolutions)
