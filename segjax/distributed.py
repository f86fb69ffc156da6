"""Several processes: their start, and detection of a process that is gone."""

import os

import jax
from absl import logging

from segjax.errors import InputError

_HEARTBEAT_SECONDS = 10  # the default of 100 leaves a run hanging on a dead peer for minutes

# Number of processes that a launcher has started, and this one among them; JAX reads the rest of
# such an environment by itself. SLURM_NTASKS is none of them: it is what a job may start, set in
# the shells of salloc and sbatch, too, where there is one process until srun starts others.
_LAUNCHED = {
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE": "PMI_RANK",
}

# What the connections of Gloo and NCCL, and JAX's coordination service, say of a peer that is gone.
_BROKEN = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
    "Socket closed",
    "heartbeat timeout",
    "ncclRemoteError",
    "ncclSystemError",
    "coordination service",
    "CoordinationService",
)


def start(
    coordinator: str = "", processes: int = 0, process_id: int = -1, distributed: str = "auto"
) -> None:
    """Joins the other processes, before anything else touches JAX.

    Args:
        coordinator: host:port of process 0.
        processes: their number; with `coordinator` alone.
        process_id: this process, from 0; with `coordinator` alone.
        distributed: without a coordinator: "auto" asks the cluster's environment where it tells of
            several processes, "on" always, "off" never.

    Raises:
        InputError: if the first three are not given together, or the environment does not tell
            where the other processes are.
    """
    named = (bool(coordinator), processes > 0, process_id >= 0)
    if any(named) and not all(named):
        raise InputError("--coordinator, --processes and --process_id are given together.")
    if all(named):
        jax.distributed.initialize(
            coordinator, processes, process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
        )
    elif distributed == "on" or (distributed == "auto" and _in_cluster()):
        _join_cluster()
    if jax.process_count() > 1:
        logging.info("Process %d of %d.", jax.process_index(), jax.process_count())
        if jax.process_index() > 0:
            logging.set_verbosity(logging.WARNING)


def lost(error: Exception) -> InputError | None:
    """What to tell the user of an error that the end of another process has caused.

    Args:
        error: any error.

    Returns:
        None where this process has no others, or the error is of another kind.
    """
    if not jax.distributed.is_initialized() or not any(text in str(error) for text in _BROKEN):
        return None
    first = " ".join(str(error).split())[:160]
    return InputError(
        f"Another process of this run has ended, or cannot be reached ({first}). What it said is "
        "the cause. Start all processes again: the run goes on from its last checkpoint."
    )


def _join_cluster() -> None:
    try:
        jax.distributed.initialize(
            local_device_ids=_local_gpus(), heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
        )
    except ValueError as error:  # of a launcher that JAX does not know
        raise InputError(
            f"The environment does not tell where the other processes are ({error}); give "
            "--coordinator=HOST:PORT, --processes and --process_id, or --distributed=off."
        ) from error


def _local_gpus() -> list[int] | None:
    """The numbers of this process's GPUs under Slurm or Open MPI; None: what JAX makes of it.

    JAX gives each process the GPU of its number on the host: one of eight where it is alone there,
    and one that it does not see where the launcher has bound it to another.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    on_host = _number(os.environ.get("SLURM_GPUS_ON_NODE", ""))
    count = len(visible.split(",")) if visible else on_host
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0]
    alone = "1" in (tasks, os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE"))
    bound = bool(visible) and count == 1
    return list(range(count)) if bound or (alone and count > 1) else None


def _in_cluster() -> bool:
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        return True
    if "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        return True
    return any(
        rank in os.environ and _number(os.environ.get(size, "")) > 1
        for size, rank in _LAUNCHED.items()
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 1
