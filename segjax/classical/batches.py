"""A classical method on a batch of images, spread over devices."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from segjax.classical import Method


def over_batch(method: Method, mesh: Mesh) -> Callable[..., jax.Array]:
    """The method on arrays [B, ...]: jitted, rows spread over the devices, nothing exchanged.

    An accelerator takes its rows together. A CPU gains nothing from that, and would run every loop
    as long as the slowest row needs: it takes one row after another.
    """
    alone = mesh.devices.flat[0].platform == "cpu"

    def rows(*arrays: jax.Array) -> jax.Array:
        if alone:
            return jax.lax.map(lambda row: method(*row), arrays)
        return jax.vmap(method)(*arrays)

    # Loop carries begin as constants, which the check takes for equal on all devices.
    spread = jax.shard_map(
        rows, mesh=mesh, in_specs=P(("data", "space")), out_specs=P(("data", "space")),
        check_vma=False,
    )  # fmt: skip
    return jax.jit(spread)
