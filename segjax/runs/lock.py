"""The lock of a run folder: one run writes into it at a time.

The file `lock.json` says which process holds the folder, and its date is renewed every few seconds.
A lock whose process is gone holds nobody up: on its own machine the process is looked for; from
another machine the file is watched for a while, which needs no clocks that agree, and no locks of
the file system, which shared ones often lack.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from segjax.errors import InputError

BEAT_SECONDS = 10.0
"""Time between two signs of life."""

_MISSED = 6  # signs of life in a row without which a run on another machine counts as dead
_NAME = "lock.json"


@dataclasses.dataclass(frozen=True)
class _Holder:
    """The process that holds a folder.

    Attributes:
        token: random, of this lock alone.
        host: name of the machine.
        machine: what tells machines, and containers with process numbers of their own, apart.
        pid: number of the process.
        started: when the process started, in ticks of the machine; "" where that is not known.
        since: when it took the lock, for people.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: str
    since: str

    @classmethod
    def here(cls) -> "_Holder":
        """This process."""
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        started = _started(os.getpid())
        token = secrets.token_hex(8)
        return cls(token, socket.gethostname(), _machine(), os.getpid(), started, since)

    @property
    def gone(self) -> bool:
        """Whether the process is known to be dead."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's
            return False
        return _started(self.pid) != self.started

    @property
    def seen(self) -> bool:
        """Whether the process is known to be alive."""
        return bool(self.started) and self.machine == _machine() and not self.gone


class Lock:
    """A lock that this process holds, or watches as one of a run's other processes.

    Args:
        path: of the lock's file.
        holder: this process; None for a process that does not hold the lock itself.
    """

    def __init__(self, path: pathlib.Path, holder: _Holder | None):
        self._path, self._holder = path, holder
        self._ended = threading.Event()
        if holder is not None:
            threading.Thread(target=self._beat, daemon=True, name="lock").start()

    def check(self) -> None:
        """Checks that no other run has taken the lock, as it may from a frozen process.

        Raises:
            InputError: naming the process that holds it now.
        """
        if self._holder is None or not self._lost():
            return
        now = _read(self._path)
        by = f"taken over by {_named(now)}" if now else "removed"
        raise InputError(
            f"{self._path.parent}: this run's lock was {by}, as it had shown no sign of life; it "
            "ends without writing further."
        )

    def release(self) -> None:
        """Gives the lock back."""
        self._ended.set()
        if self._holder is not None and not self._lost():
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _lost(self) -> bool:
        """Whether the file is gone or another's; one that cannot be read just now is neither."""
        try:
            fields = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return True
        except (OSError, ValueError):
            return False
        return self._holder is not None and fields.get("token") != self._holder.token

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                if not self._lost():
                    os.utime(self._path)  # needs no room on a full disk


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[Lock]:
    """Context in which this run alone writes into a folder; makes the folder.

    With several processes the first holds the lock for all of them.

    Raises:
        InputError: naming the process that holds the folder.
    """
    lock, error = Lock(workdir / _NAME, None), None
    if jax.process_index() == 0:
        try:
            lock = _take(workdir)
        except InputError as refused:
            error = refused
    if jax.process_count() > 1:
        ours = np.int32(error is None)
        if not multihost_utils.broadcast_one_to_all(ours) and error is None:
            error = InputError(f"{workdir} is in use by another run.")
    if error is not None:
        raise error
    try:
        yield lock
    finally:
        lock.release()


def refuse_if_held(workdir: pathlib.Path) -> None:
    """Refuses a folder whose run is known to be alive; writes nothing and does not wait.

    Only the first process looks: it may hold the folder when the others come here.

    Raises:
        InputError: naming the process that holds it.
    """
    holder = _read(workdir / _NAME) if jax.process_index() == 0 else None
    if holder is not None and holder.seen:
        raise _refusal(workdir, holder)


def _take(workdir: pathlib.Path) -> Lock:
    path = workdir / _NAME
    made = not workdir.exists()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        holder = _Holder.here()
        for _ in range(3):  # another run may take it between two of these lines
            if _create(path, holder):
                return Lock(path, holder)
            _remove_dead(workdir, path)
    except OSError as error:
        if made:
            with contextlib.suppress(OSError):
                workdir.rmdir()
        raise InputError(f"{path}: cannot be written: {error.strerror or error}.") from error
    raise InputError(f"{workdir} is in use by another run, which has just begun.")


def _create(path: pathlib.Path, holder: _Holder) -> bool:
    """Makes the lock's file unless there is one; it is never there in part."""
    partial = path.with_name(f".{holder.token}.tmp")
    text = json.dumps(dataclasses.asdict(holder), indent=2) + "\n"
    try:
        partial.write_text(text, encoding="utf-8")
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with path.open("x", encoding="utf-8") as stream:
                    stream.write(text)
            except FileExistsError:
                return False
        return True
    finally:
        partial.unlink(missing_ok=True)


def _remove_dead(
    workdir: pathlib.Path, path: pathlib.Path, wait: Callable[[float], None] = time.sleep
) -> None:
    """Removes the lock of a dead process.

    Raises:
        InputError: naming the process, if it is alive.
    """
    holder, date = _read(path), _date(path)
    if holder is not None and holder.seen:
        raise _refusal(workdir, holder)
    if holder is None or not holder.gone:
        logging.info(
            "%s is held by %s: watching its lock for a sign of life, %.0f s at most.",
            workdir,
            _named(holder),
            _MISSED * BEAT_SECONDS,
        )
        for _ in range(4 * _MISSED):
            wait(BEAT_SECONDS / 4)
            if _date(path) != date:
                if date is None or _date(path) is None:
                    return  # it has just been given back or taken
                raise _refusal(workdir, _read(path) or holder)
    now = _read(path)
    if now != holder:  # another run was faster
        raise _refusal(workdir, now or holder)
    aside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        moved = _read(aside)
        if moved != holder:  # that of a run which was faster still
            aside.rename(path)
            raise _refusal(workdir, moved or holder)
        aside.unlink()
    logging.info("%s: the lock of %s, which is dead, was removed.", workdir, _named(holder))


def _refusal(workdir: pathlib.Path, holder: _Holder | None) -> InputError:
    return InputError(
        f"{workdir} is in use by {_named(holder)}. Wait for that run to end, or give another "
        "--workdir."
    )


def _named(holder: _Holder | None) -> str:
    if holder is None:
        return "another run"
    return f"process {holder.pid} on {holder.host}, since {holder.since}"


def _read(path: pathlib.Path) -> _Holder | None:
    """Who holds a lock; None without a lock, or one that says nothing."""
    try:
        return _Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _date(path: pathlib.Path) -> int | None:
    """The date of a file, from its server: opening a file asks it anew. None without a file."""
    try:
        with path.open("rb") as stream:
            return os.fstat(stream.fileno()).st_mtime_ns
    except OSError:
        return None


def _machine() -> str:
    """Host, start of its kernel and set of process numbers; "" where these are not known."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname() if os.name == "posix" else ""


def _started(pid: int) -> str:
    """When a process started, in ticks of its machine; "" where that is not known, or it ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
