"""Learning rate schedules: factors of the learning rate over the steps of a training.

A schedule is a function `(t, span, *, option=...) -> factor`: t, float32 [], is the number of steps
since warm-up, 0 to `span`; the factor is float32 []. Options are passed by name from `config.optim`
(power, decay, step_every) and from `config.optim.options`.
`config.optim.schedule = "my_schedules:flat_then_cosine"` loads one from a module in the current
folder:

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
    """The factor 1."""
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
    """`decay`^floor(t / `step_every`).

    Raises:
        InputError: if `step_every` is below 1 or `decay` is not above 0.
    """
    if step_every < 1:
        raise InputError(f"config.optim.step_every is {step_every}; the schedule needs 1 or more.")
    if not decay > 0:
        raise InputError(f"config.optim.decay is {decay}; the schedule needs more than 0.")
    return decay ** jnp.floor(t / step_every)


SCHEDULES: registry.Table = {
    "constant": constant,
    "poly": poly,
    "cosine": cosine,
    "inverse_time": inverse_time,
    "step": step,
}


def fixed(schedule: Schedule, span: int, name: str) -> Callable[[jax.Array], jax.Array]:
    """A schedule over a fixed span: t -> factor, with t clipped to 0 ... span.

    Args:
        schedule: schedule with its options bound.
        span: number of steps.
        name: name of the schedule, for messages.

    Raises:
        InputError: if its options are not allowed, or it does not return a scalar.
    """
    factor = jax.eval_shape(lambda: jnp.asarray(schedule(jnp.zeros(()), span)))
    if factor.shape:
        raise InputError(
            f"config.optim.schedule: {name} returns an array of shape {list(factor.shape)}; "
            "a schedule returns a scalar."
        )
    return lambda t: schedule(jnp.clip(t, 0, span), span)
