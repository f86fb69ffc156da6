"""Rematerialisation: what a training step keeps of a backbone for its backward pass.

The rest is computed again there, for memory (Chen et al. 2016, Training Deep Nets with Sublinear
Memory Cost). Heads keep what they need.
"""

from collections.abc import Callable

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

CONVOLUTION, BLOCK = "convolution", "block"

RULES: dict[str, tuple[str, ...]] = {"none": (), "norms": (CONVOLUTION,), "blocks": (BLOCK,)}
"""Rule -> the maps that are kept.

"none": all that the backward pass needs. "norms": the results of convolutions, so that norms and
activations are computed again, which takes few operations. "blocks": the results of residual blocks
and poolings, so that a backbone's convolutions are, too.
"""


def convolved(x: jax.Array) -> jax.Array:
    """Marks the result of a convolution."""
    return checkpoint_name(x, CONVOLUTION)


def block(x: jax.Array) -> jax.Array:
    """Marks the result of a block."""
    return checkpoint_name(x, BLOCK)


def rematerialised(call: Callable, rule: str) -> Callable:
    """A function (module, *arguments) -> arrays, of which a rule of RULES keeps a part."""
    policy = jax.checkpoint_policies.save_only_these_names(*RULES[rule])
    lifted: Callable = nnx.remat(call, policy=policy)
    return lifted
