"""Schedules: what a learning rate is multiplied by after some of the steps.

A schedule is a function `(t, span, *, option=...) -> factor`: t, float32 [], are the steps since
warm-up, at most `span`, which are all of them; the factor is float32 []. Options are those of
`config.optim` that it takes by name: power, decay, step_every; others have a default, or come from
`config.optim.options`. `config.optim.schedule = "my_schedules:flat_then_cosine"` takes one from a
module that lies where the command runs:

    def flat_then_cosine(t, span, *, flat: float = 0.7):
        done = jnp.maximum(t / span - flat, 0) / (1 - flat)
        return 0.5 * (1 + jnp.cos(jnp.pi * done))
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from segjax import registry
from segjax.errors import InputError

Schedule = Callable[..., jax.Array]


def constant(t: jax.Array, span: int) -> jax.Array:
    """One."""
    return jnp.ones(())


def poly(t: jax.Array, span: int, *, power: float) -> jax.Array:
    """(1 - t / span)^power."""
    return (1 - t / span) ** power


def cosine(t: jax.Array, span: int) -> jax.Array:
    """Half a cosine, from 1 to 0."""
    return 0.5 * (1 + jnp.cos(jnp.pi * t / span))


def inverse_time(t: jax.Array, span: int, *, decay: float) -> jax.Array:
    """1 / (1 + decay t), Keras' decay."""
    return 1 / (1 + decay * t)


def step(t: jax.Array, span: int, *, decay: float, step_every: int) -> jax.Array:
    """Times `decay` after every `step_every` steps.

    Raises:
        InputError: if there are no steps in between, or the rate would become 0.
    """
    if step_every < 1:
        raise InputError(f"config.optim.step_every is {step_every}; the schedule wants 1 or more.")
    if not decay > 0:
        raise InputError(f"config.optim.decay is {decay}; the schedule wants more than 0.")
    return decay ** jnp.floor(t / step_every)


SCHEDULES: registry.Table = {
    "constant": constant,
    "poly": poly,
    "cosine": cosine,
    "inverse_time": inverse_time,
    "step": step,
}


def fixed(schedule: Schedule, span: int, name: str) -> Callable[[jax.Array], jax.Array]:
    """A schedule over a span: t -> factor, for any t.

    Args:
        schedule: with its options bound.
        span: the number of steps.
        name: of the schedule, for messages.

    Raises:
        InputError: if its options are not allowed, or it does not give one number.
    """
    factor = jax.eval_shape(lambda: jnp.asarray(schedule(jnp.zeros(()), span)))
    if factor.shape:
        raise InputError(
            f"config.optim.schedule: {name} gives an array of shape {list(factor.shape)}; a "
            "schedule gives one number."
        )
    return lambda t: schedule(jnp.clip(t, 0, span), span)
