"""Optimisers, schedules and the per-part multipliers of learning rate and weight decay."""

import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from segjax.errors import InputError, choose

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "poly", "cosine", "inverse_time", "step")

Part = tuple[str, float, float]
"""(pattern of parameter paths, learning rate multiplier, weight decay multiplier)."""


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The direction of a step and its length.

    Attributes:
        tx: gradients -> directions, multipliers included, learning rate not.
        schedule: step (from 0) -> learning rate. It follows `TrainState.step`, so that a step that
            was skipped for a non-finite gradient does not shift the schedule.
    """

    tx: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]


def build(
    *,
    name: str,
    lr: float,
    schedule: str,
    warmup_steps: int,
    power: float,
    decay: float,
    step_every: int,
    momentum: float,
    nesterov: bool,
    b2: float,
    weight_decay: float,
    clip_norm: float,
    parts: Sequence[Part],
    params: Any,
    total_steps: int,
) -> Optimizer:
    """The recipe's optimiser.

    Args:
        name: "sgd" (weight decay enters the gradient, as in Caffe and PyTorch) or "adamw"
            (decoupled, Loshchilov and Hutter 2019).
        lr: the rate at the schedule's start, after warm-up.
        schedule: "constant"; "poly": (1 - t/T)^power; "cosine": half a cosine to 0;
            "inverse_time": 1 / (1 + decay t), Keras' decay; "step": times decay every step_every.
        warmup_steps: linear from 0 over these first steps, before the schedule's own t = 0.
        power, decay, step_every: of "poly", "inverse_time" and "step".
        momentum: of sgd, or beta 1 of adamw.
        nesterov: of sgd.
        b2: beta 2 of adamw.
        weight_decay: coefficient before the multipliers.
        clip_norm: gradients longer than this (global norm) are scaled to it; 0 does not clip.
        parts: multipliers by path pattern, such as ("*/bias", 2.0, 0.0) and ("head/*", 10.0, 1.0);
            those that match a parameter multiply.
        params: the parameters, or their shapes.
        total_steps: T of the schedules.

    Raises:
        InputError: on an unknown name, or a pattern that matches no parameter.
    """
    choose("config.optim.name", name, OPTIMIZERS)
    rates, decays = multipliers(params, parts)
    decays = jax.tree.map(lambda factor: weight_decay * factor, decays)
    chain = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if name == "sgd":
        chain += [_add_decay(decays)] if weight_decay else []
        chain += [optax.trace(momentum, nesterov=nesterov)] if momentum else []
    else:
        chain.append(optax.scale_by_adam(b1=momentum, b2=b2))
        chain += [_add_decay(decays)] if weight_decay else []
    if parts:
        chain.append(optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, rates)))
    chain = chain or [optax.identity()]  # plain gradient descent
    factor = _factor(schedule, max(total_steps - warmup_steps, 1), power, decay, step_every)
    return Optimizer(optax.chain(*chain), _rate(lr, warmup_steps, factor))


def multipliers(params: Any, parts: Sequence[Part]) -> tuple[Any, Any]:
    """Two trees like `params`, of float: the product of the matching parts' multipliers.

    A path reads "backbone/stages/0/1/conv/kernel"; patterns are those of a shell, `*` crosses "/".

    Raises:
        InputError: naming the pattern that matches nothing.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    rates, decays = [1.0] * len(paths), [1.0] * len(paths)
    for pattern, rate, decay in parts:
        matches = [i for i, path in enumerate(paths) if fnmatch.fnmatchcase(path, pattern)]
        if not matches:
            raise InputError(
                f"config.optim.parts: {pattern!r} matches no parameter; "
                f"paths read like {paths[0]!r}, {paths[-1]!r}."
            )
        for i in matches:
            rates[i] *= rate
            decays[i] *= decay
    return jax.tree.unflatten(treedef, rates), jax.tree.unflatten(treedef, decays)


def _factor(schedule: str, span: int, power: float, decay: float, step_every: int):
    """Steps after warm-up -> what the rate is multiplied by."""
    choose("config.optim.schedule", schedule, SCHEDULES)
    if schedule == "step" and step_every < 1:
        raise InputError(f"config.optim.step_every is {step_every}; the schedule wants 1 or more.")
    shape = {
        "constant": lambda t: jnp.ones(()),
        "poly": lambda t: (1 - t / span) ** power,
        "cosine": lambda t: 0.5 * (1 + jnp.cos(jnp.pi * t / span)),
        "inverse_time": lambda t: 1 / (1 + decay * t),
        "step": lambda t: decay ** jnp.floor(t / step_every),
    }[schedule]
    return lambda t: shape(jnp.clip(t, 0, span))


def _rate(lr: float, warmup_steps: int, factor: Callable) -> Callable[[jax.Array], jax.Array]:
    def rate(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warm = jnp.minimum(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
        return lr * warm * factor(step - warmup_steps)

    return rate


def _add_decay(decays: Any) -> optax.GradientTransformation:
    def update(updates, params):
        return jax.tree.map(lambda u, p, decay: u + decay * p, updates, params, decays)

    return optax.stateless(update)
