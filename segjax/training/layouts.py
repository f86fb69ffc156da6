"""The order in memory of a train state's arrays: the compiler's own between steps, plain elsewhere.

cuDNN wants kernels in another order than networks have them. With the state in that order a step on
a GPU transposes neither them nor their momenta, and updates them where they lie. Checkpoints and
evaluation get plain arrays.
"""

from collections.abc import Callable

import jax
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh

from segjax import sharding
from segjax.training.state import TrainState


def jitted(step: Callable, mesh: Mesh, arguments: int) -> jax.stages.Wrapped:
    """A training step, or several, in which the compiler chooses the layouts of the state.

    Args:
        step: (state, ...) -> (state, scalars).
        mesh: the devices.
        arguments: how many `step` takes.

    Returns:
        The step with the state donated, to be compiled before it is called: see `laid_out`.
    """
    state = wanted(mesh)
    return jax.jit(
        sharding.on(mesh, step),
        donate_argnums=0,
        in_shardings=(state, *[None] * (arguments - 1)),
        out_shardings=(state, None),
    )


def wanted(mesh: Mesh) -> Format | None:
    """What the arrays of a state are asked to be; None: as JAX has them."""
    gpu = mesh.devices.flat[0].platform in ("gpu", "cuda", "rocm")
    return Format(Layout.AUTO, sharding.replicated(mesh)) if gpu else None


def laid_out(ts: TrainState, compiled: jax.stages.Compiled) -> TrainState:
    """The state in the layouts that a compiled step takes it in, and gives it back in."""
    return _placed(ts, compiled.input_formats[0][0])


def plain(ts: TrainState) -> TrainState:
    """The state in plain layouts, for checkpoints and evaluation."""
    orders = jax.tree.map(lambda x: Format(Layout(tuple(range(x.ndim))), x.sharding), ts)
    return _placed(ts, orders)


def _itself(ts: TrainState) -> TrainState:
    """A function of its own, so that JAX knows its programs again at the next checkpoint."""
    return ts


def _placed(ts: TrainState, formats: TrainState) -> TrainState:
    """The state in other layouts; itself where they are the same."""

    def order(form: Format) -> tuple[int, ...] | None:
        return form.layout.major_to_minor if isinstance(form.layout, Layout) else None

    pairs = zip(jax.tree.leaves(ts), jax.tree.leaves(formats), strict=True)
    if all(order(x.format) == order(form) for x, form in pairs):
        return ts
    placed: TrainState = jax.jit(_itself, out_shardings=formats)(ts)
    return placed
