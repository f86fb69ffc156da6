"""Several processes: how they find one another, and how one notices that another is gone."""

import os

import jax
from absl import flags, logging

from segjax.errors import InputError

_HEARTBEAT_SECONDS = 10  # the default of 100 leaves a run hanging on a dead peer for minutes

# Set where a job has more than one task; JAX reads the rest of such an environment by itself.
_CLUSTER_SIZES = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def define_flags() -> None:
    """Defines --coordinator, --processes, --process_id and --distributed."""
    flags.DEFINE_string("coordinator", "", "host:port of process 0, for runs on several hosts")
    flags.DEFINE_integer("processes", 0, "number of processes, with --coordinator")
    flags.DEFINE_integer("process_id", -1, "this process, from 0, with --coordinator")
    flags.DEFINE_enum(
        "distributed",
        "auto",
        ["auto", "on", "off"],
        "auto: where the cluster's environment (Slurm, Open MPI, Cloud TPU, JAX_COORDINATOR_"
        "ADDRESS) tells of several processes; on: always ask it; off: one process",
    )


def start() -> None:
    """Joins the other processes, before anything else touches JAX.

    Raises:
        InputError: if the three flags are not given together.
    """
    given = flags.FLAGS
    named = (bool(given.coordinator), given.processes > 0, given.process_id >= 0)
    if any(named) and not all(named):
        raise InputError("--coordinator, --processes and --process_id are given together.")
    if all(named):
        jax.distributed.initialize(
            given.coordinator,
            given.processes,
            given.process_id,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    elif given.distributed == "on" or (given.distributed == "auto" and _in_cluster()):
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
