"""One of two processes that take a training step together: python -m tests.two_processes ..."""

import pathlib
import sys

import jax
import numpy as np


def main(port: str, process: int, out: pathlib.Path) -> None:
    """Steps once from `tiny.awake_state`; process 0 writes the parameters to `out`."""
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
    from segjax import sharding  # after the start, as the verbs do
    from segjax.training import assembly
    from tests import tiny

    training = assembly.assemble(tiny.short_config(**tiny.NOISY), tiny.SPEC, None)
    rows = {key: np.split(value, 2)[process] for key, value in tiny.batch(0).items()}
    ts, _ = training.step(tiny.awake_state(training), sharding.put_batch(training.mesh, rows))
    if process == 0:
        np.savez(out, **tiny.by_name((ts.params, ts.batch_stats)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]))
