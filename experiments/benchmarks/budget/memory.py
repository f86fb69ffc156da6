"""The memory that a budget tells of a training step, beside what a process takes for it.

    python experiments/benchmarks/budget/memory.py [RECIPE[:WORD,...] ...]

For a CPU, on Linux: in a process of its own for each recipe the step is compiled first; the peak of
the resident memory from there on, through the making of the state and three steps, is what the
arrays and the program's own buffers take. glibc is told to give freed memory back at once: else
what drawing the weights has freed stays with the process. Prints a row for each.
"""

import gc
import os
import pathlib
import subprocess
import sys

RECIPES = ("fcn8s", "segnet_basic", "deeplab_v3_mobilenet")
_MIB = 2**20
_GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def resident(field: str) -> int:
    """`VmRSS`, the resident memory now, or `VmHWM`, its peak since the last `forget`: bytes."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def forget() -> None:
    """Sets the peak back to the resident memory of now."""
    gc.collect()
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def measure(recipe: str) -> str:
    """A row: recipe, told and measured MiB, their ratio."""
    import jax

    from segjax import sharding
    from segjax.compilers import targets
    from segjax.configuration import loading
    from segjax.data import catalog, pipeline, splits
    from segjax.planning import plan

    config = loading.load(recipe)
    dataset = catalog.load(**config.data)
    train = splits.open_split(dataset, config.train_split)
    target = targets.target("", "")
    made = plan.Recipe(config, dataset.spec, train.canvas, train.canvas)
    told = plan.training_step(made, target).memory
    training = plan.assembled(made, target)
    rows = pipeline.empty_batch(train.canvas, config.preprocess.mean, config.batch_size)
    shapes = sharding.batch_shapes(training.mesh, rows)
    step = training.step.lower(training.state_shapes(), shapes).compile()
    before = resident("VmRSS")
    forget()
    state = training.initial_state()
    for _ in range(3):
        state, scalars = step(state, sharding.put_batch(training.mesh, rows))
        jax.block_until_ready(scalars)
    took = resident("VmHWM") - before
    return (
        f"| {recipe} | {told.state / _MIB:.0f} | {told.temporary / _MIB:.0f} | "
        f"{told.total / _MIB:.0f} | {took / _MIB:.0f} | {took / told.total:.2f} |"
    )


def main() -> None:
    """Prints the table, or one row in a process of its own."""
    if sys.argv[1:2] == ["--row"]:
        print(measure(sys.argv[2]))
        return
    print("| recipe | state, MiB | temporary | told in all | measured | measured / told |")
    print("|---|---|---|---|---|---|")
    for recipe in sys.argv[1:] or RECIPES:
        command = [sys.executable, __file__, "--row", recipe]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | _GIVEN_BACK
        )
        print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
