"""The text of a budget: what a run of a recipe needs, each line as soon as it is known."""

import os
import time
from collections.abc import Mapping

import jax
import ml_collections

from segjax import units
from segjax.compilers import targets
from segjax.configuration import vocabulary
from segjax.data import catalog, splits
from segjax.data.dataset import Dataset
from segjax.errors import InputError
from segjax.planning import largest, plan, roofline
from segjax.training import assembly, inputs

_GIB = 2**30
_MOST = 4096  # images of a batch, for each device
_LOADER_SECONDS = 5.0


def show(config: ml_collections.ConfigDict, chip: str, topology: str, *, search: bool) -> None:
    """Prints the budget of a recipe.

    Args:
        config: the recipe, checked.
        chip, topology: see `targets.target`.
        search: whether to compile the step for other batches, too: the largest that fits, a longer
            accumulation, another `mesh.space`.

    Raises:
        InputError: if a name is unknown, or the recipe does not go with the devices.
    """
    vocabulary.check_weights(config)
    target = targets.target(chip, topology)
    dataset = catalog.load(**config.data)
    train, seen, note = _sizes(config, dataset)
    recipe = plan.Recipe(config, dataset.spec, train.canvas if train else seen, seen)
    _Budget(recipe, target, note).show(train, search=search)


def _sizes(
    config: ml_collections.ConfigDict, dataset: Dataset
) -> tuple[splits.Split | None, tuple[int, int], str]:
    """The training split, the size of evaluated images, and what is said where there are none."""
    crop = tuple(config.augment.size)
    try:
        train = splits.open_split(dataset, config.train_split, named_by="config.train_split")
        val = splits.open_split(dataset, config.eval.split, named_by="config.eval.split")
    except InputError as error:
        return None, crop, f"The data are not here, so images count as large as crops: {error}"
    return train, val.canvas, ""


class _Budget:
    """The lines of a budget.

    Args:
        recipe: the recipe.
        target: the devices.
        note: what is said of the data.
    """

    def __init__(self, recipe: plan.Recipe, target: targets.Target, note: str):
        self.recipe, self.target = recipe, target
        self.notes = [line for line in (note, targets.missing(target)) if line]
        self.training = plan.assembled(recipe, target)
        self.mesh = self.training.mesh

    def show(self, train: splits.Split | None, *, search: bool) -> None:
        """Prints them."""
        config = self.recipe.config
        self._show_devices()
        step = self._step()
        fits = self._show_step(step)
        self._show_evaluation()
        if bound := roofline.bound(step, self.target, config.dtype):
            self._show_time(step, bound)
        self._show_data(train, bound)
        if search:
            self._show_largest(step)
            self._show_alternatives()
        if not fits:
            raise InputError(self._refusal(step))

    def _show_devices(self) -> None:
        data, space = self.mesh.devices.shape
        chip = self.target.chip
        what = f"{len(self.target.devices)} x {chip.name if chip else 'CPU'}"
        _line("devices", f"{what}, {data} x {space} (data x space)")
        if chip:
            _line(
                "chip",
                f"{chip.memory / _GIB:.0f} GiB ({self.room / _GIB:.1f} for JAX), "
                f"{chip.rates[self.recipe.config.dtype] / 1e12:.0f} TFLOP/s in "
                f"{self.recipe.config.dtype}, {chip.bandwidth / 1e9:.0f} GB/s; {chip.source}",
            )
        for note in self.notes:
            _line("note", note)

    @property
    def room(self) -> float:
        """Bytes that a device has for programs; of a CPU those of the machine, shared by all."""
        if self.target.chip:
            return self.target.chip.usable
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return float(whole) / len(self.target.devices)

    def _step(self, **changes: int) -> plan.Program:
        return plan.training_step(self.recipe.with_changes(**changes), self.target)

    def _show_step(self, step: plan.Program) -> bool:
        """Prints what the training step needs; whether it fits."""
        config = self.recipe.config
        params, _ = self.training.model.shapes()
        _line("parameters", f"{sum(x.size for x in jax.tree.leaves(params)):,}")
        rows = config.batch_size // self.mesh.devices.shape[0]
        parts = f" in {config.accumulate} parts" if config.accumulate > 1 else ""
        _line("batch", f"{config.batch_size} images a step, {rows} on each device{parts}")
        done = step.operations
        more = f" and {units.si(done.again, 'FLOP')} computed again" if done.again else ""
        _line("operations", f"{units.si(done.products, 'FLOP')} a step{more}, on all devices")
        _line("compiled in", f"{step.seconds:.0f} s")
        if step.memory is None or step.traffic is None:
            _line("memory", f"more than the {self.room / _GIB:.1f} GiB that there are")
            return False
        memory = step.memory
        _line(
            "memory",
            f"{units.memory(memory.total)} a device: {units.memory(memory.state)} state, "
            f"{units.memory(memory.batch)} batch, {units.memory(memory.temporary)} temporary",
        )
        _line("moved", f"{units.si(step.traffic.bytes, 'B')} a step and device")
        for each in step.traffic.collectives:
            _line(each.kind, f"{each.count} of {units.si(each.bytes, 'B')} together, a device")
        return memory.total <= self.room

    def _show_evaluation(self) -> None:
        found = plan.evaluation_step(self.recipe, self.target)
        size = f"{self.recipe.seen[0]} x {self.recipe.seen[1]}"
        needs = units.memory(found.memory.total) if found.memory else "more than there is"
        _line(
            "evaluation",
            f"{needs} a device, batches of {self.recipe.config.eval.batch_size} images of {size}, "
            "one view, beside the training's state",
        )

    def _show_time(self, step: plan.Program, bound: roofline.Bound) -> None:
        config, n = self.recipe.config, len(self.target.devices)
        _line(
            "bound",
            f"{1000 * bound.seconds:.2f} ms a step by {bound.limit} (compute "
            f"{1000 * bound.compute:.2f}, memory {1000 * bound.memory:.2f}, network "
            f"{1000 * bound.network:.2f}): {config.batch_size / bound.seconds:,.0f} images/s, "
            f"{100 * bound.compute / bound.seconds:.0f} % MFU",
        )
        if n > 1:
            _line("efficiency", f"{100 * bound.efficiency:.0f} % if nothing hides the network")
        hours = config.total_steps * bound.seconds / 3600
        _line("run", f"at least {hours:.2f} h for {config.total_steps} steps, without evaluations")

    def _show_data(self, train: splits.Split | None, bound: roofline.Bound | None) -> None:
        wanted = ""
        if bound:
            images = self.recipe.config.batch_size / bound.seconds / self.target.processes
            wanted = f"{images:,.0f} images/s a process at the bound"
        if train is None:
            _line("data", wanted or "not here")
            return
        gives = f"{_loader_rate(self.training, train):,.0f} images/s by the loader, here"
        _line("data", "; ".join(part for part in (wanted, gives) if part))

    def _show_largest(self, step: plan.Program) -> None:
        config = self.recipe.config
        unit = self.mesh.devices.shape[0] * config.accumulate

        def compiled(images: int) -> plan.Program:
            _say(f"compiling a step of {images} images")
            return step if images == config.batch_size else self._step(batch_size=images)

        most = _MOST * self.mesh.devices.shape[0]
        found = largest.largest(compiled, unit, self.room, first=config.batch_size, most=most)
        text = f"{found.images} images a step" if found.images else "none"
        if found.fits and found.fits.memory:
            text += f" ({units.memory(found.fits.memory.total)} a device)"
        if found.beyond:
            beyond = found.beyond.memory
            needs = units.memory(beyond.total) if beyond else "more than the compiler allows"
            text += f"; {found.images + unit} need {needs}"
        _line("largest batch", text)

    def _show_alternatives(self) -> None:
        for name, changes in self._alternatives().items():
            _say(f"compiling {name}")
            memory = self._step(**changes).memory
            _line(
                name, f"{units.memory(memory.total)} a device" if memory else "does not fit either"
            )

    def _alternatives(self) -> Mapping[str, dict[str, int]]:
        """Flag -> the change, of those that the batch and the devices allow."""
        config, (data, space) = self.recipe.config, self.mesh.devices.shape
        found = {}
        double = 2 * config.accumulate
        if config.batch_size % (data * double) == 0:
            found[f"--config.accumulate={double}"] = {"accumulate": double}
        if data % 2 == 0 and len(self.target.devices) // self.target.processes % (2 * space) == 0:
            found[f"--config.mesh.space={2 * space}"] = {"space": 2 * space}
        return found

    def _refusal(self, step: plan.Program) -> str:
        over = ""
        if step.memory:
            over = f" by {units.memory(step.memory.total - self.room)}"
        return (
            f"The training step does not fit into {units.memory(self.room)}{over}: lower "
            "config.batch_size or config.augment.size, raise config.accumulate or "
            "config.mesh.space, or take more devices (--topology)."
        )


def _loader_rate(training: assembly.Training, split: splits.Split) -> float:
    """Images a second that the loader gives on this machine, a process with a batch of its own."""
    config = training.config
    batches = inputs.train_batches(training, split, first_step=0)
    try:
        for _ in range(config.loader.prefetch + 1):  # those that wait already
            next(batches)
        start, count = time.monotonic(), 0
        while (passed := time.monotonic() - start) < _LOADER_SECONDS:
            next(batches)
            count += config.batch_size
    finally:
        batches.close()
    return count / passed


def _line(name: str, text: str) -> None:
    print(f"{name:<14} {text}", flush=True)


def _say(text: str) -> None:
    print(f"... {text}", flush=True)
