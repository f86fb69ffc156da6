"""Normalisation layers by name: the `norm` option of backbones and heads.

An example is `{"name": "batch", "momentum": 0.9, "epsilon": 1e-5}`; the last two may be left out.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from segjax import registry
from segjax.errors import InputError, choose
from segjax.models import batch_norm
from segjax.models.moments import moments


def make(
    norm: Mapping[str, Any], features: int, *, dtype: jax.typing.DTypeLike | None, rngs: nnx.Rngs
) -> nnx.Module | None:
    """The norm layer of a name, [..., features] -> [..., features]; None for "none".

    Args:
        norm: `name` and options. "batch": over the global batch, on any number of devices (Ioffe
            and Szegedy 2015); `momentum` is the share of the running statistics that a step keeps.
            "frozen": running statistics, scale and bias that no step changes, for fine-tuning with
            small batches (Chen et al. 2017, section 4.1); with `trains`, scale and bias are trained
            (the release of RefineNet). "group": over groups of channels of each image (Wu and He
            2018), gcd(`groups`, `features`) of them. "none": for weights with the norm folded in;
            convolutions then have a bias.
        features: channels.
        dtype: type of the computation.
        rngs: supplies the initialisation keys.

    Raises:
        InputError: if the name or an option is unknown.
    """
    options = dict(norm)
    name = options.pop("name", None)
    choose(f"{_KEY}.name", name, NORMS)
    layer = registry.bind(
        NORMS[name], options, _KEY, name=name, positional=("features",), keywords=("dtype", "rngs")
    )
    return layer(features, dtype=dtype, rngs=rngs)


class _Statistic(nnx.BatchStat):
    """A running statistic that is only ever assigned as a whole.

    Flax asks an assigned value for its sharding. A traced value has none, and to write the error
    text, which flax drops, JAX reads the whole program traced so far: tracing would take time
    quadratic in the number of layers.
    """

    def __setitem__(self, key: Any, value: jax.Array) -> None:
        if key is not ...:
            raise TypeError(f"A statistic is assigned whole, [...], not at {key!r}.")
        self.set_value(value)


class BatchNorm(nnx.BatchNorm):
    """Batch norm over the global batch (Ioffe and Szegedy 2015).

    Training normalises by the variance of the batch, divided by its n values a channel; the running
    variance averages the unbiased one, divided by n - 1 (their algorithm 2, line 10), which is what
    the population has. It refuses to normalise a single value, which would be zero for every image.

    Args:
        features: channels.
        momentum: the share of the running statistics that a step keeps.
        epsilon: added to the variance.
        dtype: type of the result.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: jax.typing.DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(features, momentum=momentum, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.mean, self.var = _Statistic(self.mean[...]), _Statistic(self.var[...])

    # Calls of nnx's norms take the mode, too; here only views set it.
    def __call__(self, x: jax.Array, *, relu: bool = False) -> jax.Array:  # type: ignore[override]
        """[B, H, W, C] -> [B, H, W, C].

        Args:
            x: the map.
            relu: whether a ReLU follows; in one with it, a step moves less memory.

        Raises:
            InputError: in training, if each channel holds one value only.
        """
        if self.use_running_average:
            return _normalised(x, self.mean[...], self.var[...], self, relu=relu)
        values = x.size // x.shape[-1]
        if values == 1:
            raise InputError(
                "Batch norm would see one value a channel (one image with a map of 1 x 1): train "
                'with a larger batch_size or a smaller accumulate, or choose the norm "frozen" or '
                '"group", for example by --config.model.*.norm.name=group.'
            )
        scale, bias = _affine(self)
        dtype = self.dtype or jnp.promote_types(x.dtype, jnp.float32)
        y, mean, var = batch_norm.normalised(x, scale, bias, self.epsilon, relu, dtype)
        for running, now in ((self.mean, mean), (self.var, var * (values / (values - 1)))):
            running[...] = self.momentum * running[...] + (1 - self.momentum) * now
        return y


class GroupNorm(nnx.GroupNorm):
    """Group norm (Wu and He 2018): every image by itself, its channels in groups.

    Args:
        features: channels.
        groups: their number, a divisor of `features`.
        **options: those of `nnx.GroupNorm`.
    """

    def __call__(self, x: jax.Array, *, relu: bool = False) -> jax.Array:  # type: ignore[override]
        """[B, H, W, C] -> [B, H, W, C]; `relu`: see `BatchNorm`."""
        grouped = x.reshape(*x.shape[:-1], self.num_groups, self.group_size)
        axes = (*range(1, x.ndim - 1), x.ndim)
        by_channel = (*x.shape[:1], *[1] * (x.ndim - 2), x.shape[-1])
        mean, var = (
            jnp.repeat(s[..., 0], self.group_size, axis=-1).reshape(by_channel)
            for s in moments(grouped, axes, x.ndim - 2)
        )
        return _normalised(x, mean, var, self, relu=relu)


def _normalised(
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    norm: nnx.BatchNorm | nnx.GroupNorm,
    *,
    relu: bool,
) -> jax.Array:
    """(x - mean) / sqrt(var + epsilon), scaled and shifted; in float32 at least.

    The type of the computation is that of the result alone: a mean of bfloat16 has two digits.
    """
    scale, bias = _affine(norm)
    y = batch_norm.affine(x, mean, jax.lax.rsqrt(var + norm.epsilon) * scale, bias)
    y = y.astype(norm.dtype or y.dtype)
    return nnx.relu(y) if relu else y


def _affine(norm: nnx.BatchNorm | nnx.GroupNorm) -> tuple[jax.Array, jax.Array]:
    """The scale and the bias."""
    assert norm.scale is not None  # `make` leaves neither out
    assert norm.bias is not None
    return norm.scale[...], norm.bias[...]


class FrozenNorm(nnx.Module):
    """Batch norm with fixed running statistics, and a fixed scale and bias unless it `trains`.

    Args:
        features: channels.
        epsilon: added to the variance.
        trains: whether scale and bias are parameters, which training changes.
        dtype: type of the result.
    """

    def __init__(
        self,
        features: int,
        *,
        epsilon: float,
        trains: bool = False,
        dtype: jax.typing.DTypeLike | None = None,
    ):
        kind = nnx.Param if trains else nnx.BatchStat
        self.scale, self.bias = kind(jnp.ones(features)), kind(jnp.zeros(features))
        self.mean, self.var = nnx.BatchStat(jnp.zeros(features)), nnx.BatchStat(jnp.ones(features))
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x: jax.Array, *, relu: bool = False) -> jax.Array:
        """[..., C] -> [..., C]; `relu`: see `BatchNorm`."""
        factor = self.scale[...] * jax.lax.rsqrt(self.var[...] + self.epsilon)
        shift = self.bias[...] - self.mean[...] * factor
        y = (x * factor + shift).astype(self.dtype or x.dtype)
        return nnx.relu(y) if relu else y


def _frozen(
    features: int,
    *,
    epsilon: float = 1e-5,
    trains: bool = False,
    dtype: jax.typing.DTypeLike | None,
    rngs: nnx.Rngs,
) -> FrozenNorm:
    del rngs  # nothing is drawn
    return FrozenNorm(features, epsilon=epsilon, trains=trains, dtype=dtype)


def _group(
    features: int,
    *,
    groups: int = 32,
    epsilon: float = 1e-5,
    dtype: jax.typing.DTypeLike | None,
    rngs: nnx.Rngs,
) -> GroupNorm:
    groups = math.gcd(groups, features)
    return GroupNorm(features, groups, epsilon=epsilon, dtype=dtype, rngs=rngs)


def _none(features: int, *, dtype: jax.typing.DTypeLike | None, rngs: nnx.Rngs) -> None:
    """No layer."""


NORMS: Mapping[str, Callable[..., Any]] = {
    "batch": BatchNorm,
    "frozen": _frozen,
    "group": _group,
    "none": _none,
}
_KEY = "config.model.*.norm"
