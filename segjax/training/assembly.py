"""Assembly of a training from a config: its static part and its state."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from segjax import losses, sharding
from segjax.data.spec import DatasetSpec
from segjax.network import Model, model_of
from segjax.training import augment, dispatch, layouts, optim, state, steps


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """The static part of a training; arrays are in `TrainState`.

    Attributes:
        config: the resolved config.
        model: the network without its weights.
        mesh: the devices.
        optimizer: the optimiser with its schedule.
        loss: the loss with its class weights.
        augmentation: augmentation of one example.
    """

    config: ml_collections.ConfigDict
    model: Model
    mesh: Mesh
    optimizer: optim.Optimizer
    loss: losses.Loss
    augmentation: augment.Augmentation

    @functools.cached_property
    def step(self) -> jax.stages.Wrapped:
        """The training step, jitted: (state, batch) -> (state, scalars); the state is donated."""
        return jax.jit(sharding.on(self.mesh, self._step), donate_argnums=0)

    @functools.cached_property
    def program(self) -> jax.stages.Wrapped:
        """`step` with the layouts of the state left to the compiler: see `layouts.jitted`."""
        return layouts.jitted(self._step, self.mesh, arguments=2)

    @functools.cached_property
    def program_of_several(self) -> jax.stages.Wrapped:
        """`dispatch.several`, as `program`: (state, batches, first, count) -> the same."""
        steps = functools.partial(
            dispatch.several, step=self._step, patience=self.config.stop.skipped
        )
        return layouts.jitted(steps, self.mesh, arguments=4)

    @property
    def _step(self) -> dispatch.Step:
        return functools.partial(
            steps.train_step,
            model=self.model,
            augmentation=self.augmentation,
            seed=self.config.seed,
            optimizer=self.optimizer,
            loss=self.loss,
            accumulate=self.config.accumulate,
            ema_decay=self.config.ema_decay,
            remat=self.config.remat,
        )

    @functools.cached_property
    def batch_statistics(self) -> Callable:
        """`steps.batch_statistics`, jitted: (network, batch) -> batch statistics."""
        statistics = functools.partial(
            steps.batch_statistics, augmentation=self.augmentation, seed=self.config.seed
        )
        return jax.jit(sharding.on(self.mesh, statistics))

    def initial_state(self) -> state.TrainState:
        """The state before the first step, with random weights."""
        return state.create(
            self.model.draw,
            self.optimizer.tx,
            seed=self.config.seed,
            ema=self.config.ema_decay > 0,
            mesh=self.mesh,
        )

    def state_shapes(self) -> state.TrainState:
        """Shapes and shardings of the state, the target of a restore."""
        ema = self.config.ema_decay > 0
        return state.shapes(*self.model.shapes(), self.optimizer.tx, ema=ema, mesh=self.mesh)


def assemble(
    config: ml_collections.ConfigDict,
    spec: DatasetSpec,
    class_weights: Sequence[float] | None,
    devices: Sequence[jax.Device] | None = None,
) -> Training:
    """Builds a training; creates no arrays and compiles nothing.

    Args:
        config: the recipe.
        spec: data set spec.
        class_weights: class weights of the loss, or None.
        devices: devices to use; None for all.

    Raises:
        InputError: if a name, option or size is not allowed.
    """
    mesh = sharding.make_mesh(config.mesh.space, devices)
    model = model_of(config, spec)
    params, _ = model.shapes()
    return Training(
        config=config,
        model=model,
        mesh=mesh,
        optimizer=optim.build(**config.optim, params=params, total_steps=config.total_steps),
        loss=losses.build(**{**config.loss, "class_weights": class_weights}),
        augmentation=augment.build(
            **config.augment, base_scale=config.input_scale, base_size=config.input_size
        ),
    )


def growth(training: Training, before: int, step: int) -> str:
    """What a greater `config.total_steps` does to the learning rate, in one line.

    Args:
        training: the training, with the new number of steps.
        before: the number of steps before.
        step: last completed step.
    """
    config = training.config
    params, _ = training.model.shapes()
    shorter = optim.build(**config.optim, params=params, total_steps=before).schedule
    # The schedule counts from 0: step s is taken at the rate of s - 1.
    now = float(training.optimizer.schedule(jnp.int32(step)))
    told = f"config.total_steps grows from {before} to {config.total_steps}"
    if step >= before:
        last = float(shorter(jnp.int32(step - 1)))
        return f"{told}: the learning rate goes from {last:.4g} to {now:.4g} at step {step + 1}."
    planned = float(shorter(jnp.int32(step)))
    if now == planned:
        return f"{told}: the learning rate of step {step + 1} stays {now:.4g}."
    return (
        f"{told}: the learning rate of step {step + 1} is {now:.4g} in place of {planned:.4g}, and "
        "the later ones follow the schedule of the longer run."
    )
