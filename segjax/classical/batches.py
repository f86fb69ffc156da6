"""Batches of images for the classical methods, on one device and on several."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from segjax.classical import Method


def over_batch(method: Method, mesh: Mesh) -> Callable[..., jax.Array]:
    """The jitted method for arrays [B, ...], with rows spread over the devices.

    Devices exchange nothing. An accelerator computes its rows together. A CPU computes one row
    after another, because together they are no faster and every loop would run as long as the
    slowest row needs.
    """
    one_at_a_time = mesh.devices.flat[0].platform == "cpu"

    def rows(*arrays: jax.Array) -> jax.Array:
        if one_at_a_time:
            return jax.lax.map(lambda row: method(*row), arrays)
        return jax.vmap(method)(*arrays)

    # check_vma would take loop carries, which start as constants, for equal on all devices.
    spread = jax.shard_map(
        rows, mesh=mesh, in_specs=P(("data", "space")), out_specs=P(("data", "space")),
        check_vma=False,
    )  # fmt: skip
    return jax.jit(spread)


def one_by_one(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """The result of `function(*arrays)`; under vmap a CPU computes one example after another.

    A batched program is no faster there and rounds differently, because its sums are fused in
    another way; a cut may then fall elsewhere.
    """
    single = jax.custom_batching.sequential_vmap(function)
    return jax.lax.platform_dependent(*arrays, cpu=single, default=function)
