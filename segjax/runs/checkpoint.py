"""Saving and restoring a run; the only file that knows orbax."""

import contextlib
import dataclasses
import errno
import functools
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from segjax.errors import InputError
from segjax.runs import best, closing, shapes, unraisable

FIELDS = ("step", "params", "batch_stats", "opt_state", "ema", "skipped")
"""Fields of a train state, in the order that its fingerprint goes through them."""


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Orbax warns of what is meant: a handler that is replaced, a folder that is only read."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _write_small_arrays_whole() -> None:
    """Makes one device write a small array whole.

    By default every device that holds a copy of an array writes a part of it. Orbax cuts the parts
    out one by one while training waits, and a norm alone has four small arrays.
    """
    handler = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=2**20)
    with _without_warnings():
        ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)


_write_small_arrays_whole()


@functools.cache
def _hush_tensorstore() -> None:
    """Keeps tracebacks of a save that failed from the screen: its error is raised, once.

    Tensorstore's threads report the other parts of the save to an event loop that is gone by then.
    """
    unraisable.divert(lambda told: str(told.exc_value) == "Event loop is closed")


@jax.jit
def fingerprint(tree: Any) -> jax.Array:
    """uint32 []: integer arithmetic over every byte, so exact on any sharding; no bool leaves."""

    def words(x: jax.Array) -> jax.Array:
        return jnp.sum(jax.lax.bitcast_convert_type(x, jnp.uint8), dtype=jnp.uint32)

    leaves = enumerate(jax.tree.leaves(tree))
    total: jax.Array = sum((words(x) * jnp.uint32(2 * i + 1) for i, x in leaves), jnp.uint32(0))
    return total


def steps_in(directory: pathlib.Path) -> list[int]:
    """Steps with complete checkpoints in a folder; [] if the folder does not exist."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdigit())


class _Manager(ocp.CheckpointManager):
    """A manager that leaves scores to `best.Scores`: orbax fails to open where one is damaged."""

    def metrics(self, step: int) -> None:
        """None for every step."""


@dataclasses.dataclass
class _Kept(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the steps that a function chooses of those there are."""

    choose: Callable[[Sequence[int]], set[int]]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Whether to keep each checkpoint."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = self.choose(steps)
        return [step in kept for step in steps]


class Checkpoints(closing.Closing):
    """The checkpoints of one run: the latest ones and the best one. A context manager.

    Args:
        directory: folder of the checkpoints.
        metric: scalar that selects the best checkpoint.
        mode: "max" or "min".
        keep: number of latest checkpoints to keep besides the best.
        read_only: whether to never write or delete.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        metric: str,
        mode: str,
        keep: int,
        read_only: bool = False,
    ):
        self.directory = directory
        self._scores = best.Scores(directory, metric=metric, mode=mode, keep=keep)
        self._read_only = read_only
        if not read_only:
            _hush_tensorstore()
        options = ocp.CheckpointManagerOptions(
            read_only=read_only,
            create=not read_only,
            save_interval_steps=0 if read_only else 1,
            cleanup_tmp_directories=not read_only,
            preservation_policy=_Kept(self._scores.kept),
        )
        with self._writing(), _without_warnings():
            self._manager = _Manager(
                directory.absolute(),
                options=options,
                item_handlers={
                    "state": ocp.StandardCheckpointHandler(),
                    "meta": ocp.JsonCheckpointHandler(),
                },
            )

    def save(
        self,
        state: Any,
        step: int,
        *,
        meta: Mapping[str, Any],
    ) -> None:
        """Starts saving; the arrays may be donated once this returns.

        Args:
            state: a tree of arrays.
            step: its step.
            meta: plain JSON.

        Raises:
            InputError: if the disk is full (possibly of the save before this one).
        """
        if step in self._manager.all_steps():
            return
        self._scores.forget(step)
        meta = dict(meta, fingerprint=int(fingerprint(state)), step=step)
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        with self._writing():
            # Forced: when to save is the caller's business alone.
            self._manager.save(step, args=args, force=True)

    def wait(self) -> None:
        """Waits until what was saved is on disk."""
        with self._writing():
            self._manager.wait_until_finished()

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """Stores the scalars of an evaluation beside the checkpoint that it evaluated.

        A checkpoint is saved before its evaluation, which may be interrupted, and gets the scalars
        after it; then checkpoints that are neither new nor the best are deleted.

        Args:
            step: of the checkpoint; nothing happens if there is none.
            metrics: name -> value.

        Raises:
            InputError: if the disk is full.
        """
        self.wait()
        if step not in self._manager.all_steps():
            return
        self._scores.store(step, metrics, write=jax.process_index() == 0)
        steps = self._manager.all_steps()
        for old in sorted(set(steps) - self._scores.kept(steps)):
            self._manager.delete(old)

    def metrics(self, step: int) -> dict[str, float] | None:
        """The scalars that `record` stored; None if there are none, or they cannot be read."""
        return self._scores.metrics(step)

    def reached_preemption(self, step: int) -> bool:
        """With several processes: the cluster wants the machines back; true in all at one step."""
        reached: bool = self._manager.reached_preemption(step)
        return reached

    def restore(self, like: Any, which: str = "latest") -> tuple[Any, dict] | None:
        """The state and the JSON item of a checkpoint, or None where there is none at all.

        Damaged checkpoints that are newer than the one found are set aside as `damaged-<step>`, so
        that these steps can be saved again; not if `read_only`.

        Args:
            like: tree of ShapeDtypeStruct with the shardings to restore to.
            which: "latest", walking back over damaged ones, "best", or a step's number.

        Raises:
            InputError: if the checkpoint is of another model, or damaged and no other may stand in.
        """

        def read(step: int) -> tuple[Any, dict]:
            self._compare(like, self._stored(step), step)
            return self._read(step, like)

        return self._first_whole(read, which)

    def restore_fields(
        self, like: Mapping[str, Any], *, which: str, on: jax.sharding.Sharding
    ) -> tuple[dict[str, Any], dict]:
        """The state as a dict of its fields, and the JSON item; no optimiser need be known.

        All fields are read, as the fingerprint is that of the whole state.

        Args:
            like: trees of ShapeDtypeStruct, by field, that must fit; the others are not compared.
            which: see `restore`.
            on: where the arrays go.

        Raises:
            InputError: as `restore`, or if there is no checkpoint.
        """

        def read(step: int) -> tuple[Any, dict]:
            stored = dict(self._stored(step))
            self._compare(dict(like), {k: stored[k] for k in like}, step)
            wanted = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on), stored
            )
            return self._read(step, wanted, by_field=True)

        restored = self._first_whole(read, which)
        if restored is None:
            raise InputError(f"{self.directory}: there is no checkpoint.")
        return restored

    def _first_whole(
        self, read: Callable[[int], tuple[Any, dict]], which: str
    ) -> tuple[Any, dict] | None:
        """Reads the chosen checkpoint; for "latest", the newest that is not damaged."""
        self.wait()  # a save under way counts as a step, unfinished
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps and which == "latest":
            return None
        if which != "latest":
            chosen = self._scores.best(steps) if which == "best" else _number(which)
            if chosen not in steps:
                known = ", ".join(map(str, sorted(steps))) or "none"
                raise InputError(f"{self.directory}: no checkpoint {which!r}; steps: {known}.")
            steps = [chosen]
        for place, step in enumerate(steps):
            try:
                found = read(step)
                if place and not self._read_only:
                    self._set_aside(steps[:place])
                return found
            except InputError:
                raise
            except Exception as error:  # orbax raises bare Exceptions for damage
                logging.error("%s: step %d is damaged: %.120s", self.directory, step, error)
        raise InputError(f"{self.directory}: every checkpoint is damaged: {sorted(steps)}.")

    def _set_aside(self, damaged: Iterable[int]) -> None:
        """Renames checkpoints, as what looks damaged may be a disk that could not be read."""
        for step in damaged:
            aside = self.directory / f"damaged-{step}"
            if jax.process_index() == 0:
                shutil.rmtree(aside, ignore_errors=True)
                try:
                    (self.directory / str(step)).rename(aside)
                except OSError as error:
                    raise InputError(
                        f"{aside}: cannot be written: {error.strerror or error}."
                    ) from error
            self._scores.forget(step)
            logging.warning("The damaged step %d is set aside as %s.", step, aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()

    def read_meta(self) -> dict:
        """The JSON item of the newest checkpoint that can be read.

        Raises:
            InputError: if there is none.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                args = ocp.args.Composite(meta=ocp.args.JsonRestore())
                meta: dict = self._manager.restore(step, args=args).meta
                return meta
            except Exception as error:  # orbax raises bare Exceptions for damage
                logging.error("%s: step %d is damaged: %.120s", self.directory, step, error)
        raise InputError(f"{self.directory}: there is no whole checkpoint.")

    def _read(self, step: int, like: Any, *, by_field: bool = False) -> tuple[Any, dict]:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like), meta=ocp.args.JsonRestore())
        got = self._manager.restore(step, args=args)
        arrays = [got.state[name] for name in FIELDS] if by_field else got.state
        if int(fingerprint(arrays)) != got.meta["fingerprint"]:
            raise ValueError("its fingerprint does not match its arrays")
        if got.meta.get("step", step) != step:
            raise ValueError(f"it holds step {got.meta['step']}")
        return got.state, got.meta

    def _stored(self, step: int) -> Any:
        """Shapes and types of a checkpoint's arrays."""
        stored = self._manager.item_metadata(step).state
        if not jax.tree.leaves(stored):
            raise ValueError("its list of arrays cannot be read")
        return stored

    def _compare(self, expected: Any, stored: Any, step: int) -> None:
        """Shapes and types first: orbax casts silently, and reports shapes in hundreds of lines."""
        differences = shapes.differences(expected, stored)
        if differences:
            raise InputError(
                f"{self.directory}: step {step} is a checkpoint of another model; "
                + "; ".join(differences)
                + "."
            )

    def close(self) -> None:
        """Waits for the save under way; one that is not waited for is lost."""
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # orbax wraps what the file system said
            if isinstance(error, InputError):
                raise
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            full = full or any(text in str(error) for text in _FULL_DISK)
            refused = isinstance(error, OSError) or any(text in str(error) for text in _REFUSED)
            if not full and not refused:
                raise
            said = "" if full else f": {' '.join(str(error).split())[:200]}"
            cause, what = ("the disk is full, ", "Make room") if full else ("", "Mend that")
            last = max(steps_in(self.directory), default=None)
            raise InputError(
                f"{self.directory}: {cause}a checkpoint was not saved{said}; "
                f"last whole one: {'none' if last is None else f'step {last}'}. "
                f"{what} and start again: the run goes on from there."
            ) from error


_FULL_DISK = ("RESOURCE_EXHAUSTED", "No space left", "Disk quota", "File too large")
_REFUSED = ("PERMISSION_DENIED", "Permission denied", "Read-only file system", "Input/output error")


def _number(which: str) -> int:
    if not which.isdigit():
        raise InputError(f'A step is "best", "latest" or a number, got {which!r}.')
    return int(which)
