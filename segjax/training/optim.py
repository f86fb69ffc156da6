"""Optimisers, with multipliers of learning rate and weight decay for parts of the network.

An optimiser is a function that takes options and returns one optax transformation or a list of
them, from gradients to directions; a step subtracts the direction times the learning rate. Every
optimiser takes `add_decay`, a list with the transformation that adds weight decay, including the
multipliers; it is empty if `config.optim.weight_decay` is 0. Options are passed by name from
`config.optim` (momentum, nesterov, b2) and from `config.optim.options`.
`config.optim.name = "my_optimisers:lion"` loads one from a module in the current folder:

    def lion(*, momentum: float, b2: float, add_decay: list):
        return [optax.scale_by_lion(b1=momentum, b2=b2), *add_decay]
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from segjax import registry
from segjax.errors import InputError
from segjax.training import schedules

Part = tuple[str, float, float]
"""(pattern of parameter paths, learning rate multiplier, weight decay multiplier)."""


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimiser with its learning rate schedule.

    Attributes:
        tx: gradients -> directions, with multipliers but without the learning rate.
        schedule: step (from 0) -> learning rate. It follows `TrainState.step`, which also counts
            skipped steps.
    """

    tx: optax.GradientTransformation
    schedule: Callable[[jax.Array], jax.Array]


def sgd(
    *, momentum: float, nesterov: bool, add_decay: list[optax.GradientTransformation]
) -> list[optax.GradientTransformation]:
    """Gradient descent with momentum; weight decay enters the gradient, as in Caffe and PyTorch."""
    return [*add_decay, *([optax.trace(momentum, nesterov=nesterov)] if momentum else [])]


def adamw(
    *, momentum: float, b2: float, add_decay: list[optax.GradientTransformation]
) -> list[optax.GradientTransformation]:
    """AdamW, with decoupled weight decay (Loshchilov and Hutter 2019); `momentum` is its beta 1."""
    return [optax.scale_by_adam(b1=momentum, b2=b2), *add_decay]


OPTIMIZERS: registry.Table = {"sgd": sgd, "adamw": adamw}


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
    options: Mapping[str, Any] | None = None,
) -> Optimizer:
    """The optimiser that `config.optim` describes.

    Args:
        name: one of OPTIMIZERS, or "module:Name".
        lr: learning rate after warm-up.
        schedule: one of `schedules.SCHEDULES`, or "module:Name".
        warmup_steps: number of steps of linear warm-up before the schedule starts.
        power, decay, step_every: options of the schedule, if it takes them.
        momentum, nesterov, b2: options of the optimiser, if it takes them.
        weight_decay: factor of the parameter in weight decay; see the optimiser.
        clip_norm: largest global norm of the gradient; 0 for no clipping.
        parts: multipliers by path pattern, such as ("*/bias", 2.0, 0.0) and ("head/*", 10.0, 1.0);
            if several match a parameter, their product counts.
        params: the parameters, or their shapes.
        total_steps: number of training steps, including warm-up.
        options: further options of the optimiser and the schedule; each gets those that it takes.

    Raises:
        InputError: if a name, option or value is not allowed, or a pattern matches no parameter.
    """
    rates, decays = multipliers(params, parts)
    decays = jax.tree.map(lambda factor: weight_decay * factor, decays)
    settings = {
        "momentum": momentum,
        "nesterov": nesterov,
        "b2": b2,
        "power": power,
        "decay": decay,
        "step_every": step_every,
    }
    make, shape = _chosen(name, schedule, options or {}, settings)
    chain = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    chain += _transformations(make(add_decay=[_add_decay(decays)] if weight_decay else []), name)
    if parts:
        chain.append(optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, rates)))
    chain = chain or [optax.identity()]  # plain gradient descent
    factor = schedules.fixed(shape, max(total_steps - warmup_steps, 1), schedule)
    return Optimizer(optax.chain(*chain), _rate(lr, warmup_steps, factor))


def _chosen(
    name: str, schedule: str, options: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[Callable, schedules.Schedule]:
    """The optimiser and the schedule, with their options bound."""
    key = "config.optim.options"
    make = registry.find(OPTIMIZERS, name, "config.optim.name")
    shape = registry.find(schedules.SCHEDULES, schedule, "config.optim.schedule")
    decay, place = ("add_decay",), ("t", "span")
    known = {
        name: registry.option_names(make, name, key, keywords=decay),
        schedule: registry.option_names(shape, schedule, key, positional=place),
    }
    dealt = registry.deal(options, known, key)
    return (
        registry.bind(make, dealt[name], key, name=name, keywords=decay, offered=settings),
        registry.bind(
            shape, dealt[schedule], key, name=schedule, positional=place, offered=settings
        ),
    )


def _transformations(made: Any, name: str) -> list[optax.GradientTransformation]:
    """The transformations that an optimiser returned, as a list.

    Raises:
        InputError: if it returned anything else.
    """
    made = [made] if isinstance(made, optax.GradientTransformation) else made
    if not isinstance(made, list | tuple) or not all(
        isinstance(one, optax.GradientTransformation) for one in made
    ):
        raise InputError(
            f"config.optim.name: {name} returns {type(made).__name__}; an optimiser returns one "
            "optax transformation or a list of them."
        )
    return list(made)


def multipliers(params: Any, parts: Sequence[Part]) -> tuple[Any, Any]:
    """Multipliers of learning rate and weight decay: two trees of floats like `params`.

    If several patterns match a parameter, its multiplier is their product. A path looks like
    "backbone/stages/0/1/conv/kernel"; patterns follow shell rules, but `*` also matches "/".

    Raises:
        InputError: naming a pattern that matches nothing.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    rates, decays = [1.0] * len(paths), [1.0] * len(paths)
    for pattern, rate, decay in parts:
        matches = [i for i, path in enumerate(paths) if fnmatch.fnmatchcase(path, pattern)]
        if not matches:
            raise InputError(
                f"config.optim.parts: {pattern!r} matches no parameter; "
                f"paths look like {paths[0]!r}, {paths[-1]!r}."
            )
        for i in matches:
            rates[i] *= rate
            decays[i] *= decay
    return jax.tree.unflatten(treedef, rates), jax.tree.unflatten(treedef, decays)


def _rate(
    lr: float, warmup_steps: int, factor: Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    def rate(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warm = jnp.minimum(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
        now: jax.Array = lr * warm * factor(step - warmup_steps)
        return now

    return rate


def _add_decay(decays: Any) -> optax.GradientTransformation:
    def update(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, p, decay: u + decay * p, updates, params, decays)

    return optax.stateless(update)
