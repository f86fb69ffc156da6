"""Normalisation of channels, by name: what `norm` of a backbone or head says.

`{"name": "batch", "momentum": 0.9, "epsilon": 1e-5}`; the last two may be left out.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from segjax.errors import InputError, choose

NORMS = ("batch", "frozen", "group", "none")
_OPTIONS = {
    "batch": {"momentum": 0.9, "epsilon": 1e-5},
    "frozen": {"epsilon": 1e-5, "trains": False},
    "group": {"groups": 32, "epsilon": 1e-5},
    "none": {},
}


def make(norm: Mapping[str, Any], features: int, *, dtype, rngs: nnx.Rngs) -> nnx.Module | None:
    """A layer [..., features] -> [..., features], or None.

    Args:
        norm: `name` and options. "batch": over the global batch, whatever devices it lies on (Ioffe
            and Szegedy 2015); `momentum` is the share of the running statistics that a step keeps.
            "frozen": by running statistics, scale and bias that no step changes, as fine-tuning
            with small batches wants (Chen et al. 2017, section 4.1); if it `trains`, scale and bias
            are changed (the release of RefineNet). "group": over `groups` of
            channels of each image (Wu and He 2018). "none": weights that hold their norm already;
            convolutions then have a bias.
        features: channels.
        dtype: type of the computation.
        rngs: supplies the initialisation keys.

    Raises:
        InputError: on an unknown name or option.
    """
    norm = dict(norm)
    name = norm.pop("name", None)
    choose("config.model, a norm's name", name, NORMS)
    for key in norm:
        if key not in _OPTIONS[name]:
            allowed = ", ".join(_OPTIONS[name]) or "none"
            raise InputError(f"config.model: norm {name!r} takes no {key!r}; allowed: {allowed}.")
    options = _OPTIONS[name] | norm
    if name == "batch":
        return BatchNorm(features, **options, dtype=dtype, rngs=rngs)
    if name == "frozen":
        return FrozenNorm(features, **options, dtype=dtype)
    if name == "group":
        groups = math.gcd(options["groups"], features)
        epsilon = options["epsilon"]
        return nnx.GroupNorm(features, groups, epsilon=epsilon, dtype=dtype, rngs=rngs)
    return None


class _Statistic(nnx.BatchStat):
    """A running statistic that is always replaced whole.

    Flax asks an assigned value for its sharding; a traced one has none, and JAX's error about that,
    which flax drops, reads the whole program so far. Tracing would be quadratic in the layers.
    """

    def __setitem__(self, key: Any, value: jax.Array) -> None:
        if key is not ...:
            raise TypeError(f"A statistic is assigned whole, [...], not at {key!r}.")
        self.set_value(value)


class BatchNorm(nnx.BatchNorm):
    """Batch norm that refuses to normalise one value, which is zero whatever the image shows."""

    def __init__(self, features: int, **options: Any):
        super().__init__(features, **options)
        self.mean, self.var = _Statistic(self.mean[...]), _Statistic(self.var[...])

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C].

        Raises:
            InputError: in training, if a channel has one value.
        """
        if not self.use_running_average and x.size == x.shape[-1]:
            raise InputError(
                "Batch norm would see one value a channel (one image whose map is 1 x 1). Train "
                'with a larger batch_size or a smaller accumulate, or choose the norm "frozen" or '
                '"group", such as --config.model.head.norm.name=group.'
            )
        return super().__call__(x)


class FrozenNorm(nnx.Module):
    """Batch norm whose statistics are not updated, nor scale and bias trained.

    Args:
        features: channels.
        epsilon: added to the variance.
        trains: whether scale and bias are trained after all.
        dtype: type of the result.
    """

    def __init__(self, features: int, *, epsilon: float, trains: bool = False, dtype=None):
        own = nnx.Param if trains else nnx.BatchStat
        self.scale, self.bias = own(jnp.ones(features)), own(jnp.zeros(features))
        self.mean, self.var = nnx.BatchStat(jnp.zeros(features)), nnx.BatchStat(jnp.ones(features))
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] -> [..., C]."""
        factor = self.scale[...] * jax.lax.rsqrt(self.var[...] + self.epsilon)
        shift = self.bias[...] - self.mean[...] * factor
        return (x * factor + shift).astype(self.dtype or x.dtype)
