"""Several processes: their start, and detection of a process that is gone."""

import os

import jax
from absl import logging

from segjax.errors import InputError

_HEARTBEAT_SECONDS = 10  # the default of 100 leaves a run hanging on a dead peer for minutes

# Set where a job has more than one task; JAX reads the rest of such an environment by itself.
_CLUSTER_SIZES = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


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
        InputError: if the first three are not given together.
    """
    named = (bool(coordinator), processes > 0, process_id >= 0)
    if any(named) and not all(named):
        raise InputError("--coordinator, --processes and --process_id are given together.")
    if all(named):
        jax.distributed.initialize(
            coordinator, processes, process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
        )
    elif distributed == "on" or (distributed == "auto" and _in_cluster()):
        jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
    if jax.process_count() > 1:
        logging.info("Process %d of %d.", jax.process_index(), jax.process_count())
        if jax.process_index() > 0:
            logging.set_verbosity(logging.WARNING)


def _in_cluster() -> bool:
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        return True
    if "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        return True
    return any(int(os.environ.get(name) or 1) > 1 for name in _CLUSTER_SIZES)
