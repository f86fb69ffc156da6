"""One row of the table: a recipe's step compiled for a chip, in a process of its own.

    python experiments/benchmarks/compiled/program.py RECIPE CHIP WIDTH STEP CHANGES [TEXT]

Prints the row as JSON on its last line. CHANGES is JSON, dotted keys of the config; TEXT names a
file for the text of the compiled program. The segjax that is imported may be an earlier commit's:
what it lacks for measuring is taken from this one's.
"""

import json
import pathlib
import sys
import time

import segjax

segjax.__path__.append(str(pathlib.Path(__file__).parents[3] / "segjax"))

from segjax.compilers import optimised, targets  # noqa: E402
from segjax.configuration import loading  # noqa: E402
from segjax.data.class_tables import CAMVID  # noqa: E402
from segjax.planning import plan  # noqa: E402
from segjax.training import assembly  # noqa: E402

if not hasattr(assembly.Training, "program"):  # a commit before this one's layouts
    assembly.Training.program = property(lambda training: training.step)

SIZE = (360, 480)
BATCH = {"tpu": 8, "cuda": 16}  # images of a step at full width


def recipe(name: str, platform: str, width: str, changes: dict) -> plan.Recipe:
    """The recipe in bfloat16, at `smoke` width or full."""
    config = loading.load(f"{name}:{'smoke' if width == 'smoke' else 'camvid'}")
    with config.unlocked():
        config.dtype, config.accumulate = "bfloat16", 1
        if width == "full":
            config.batch_size = config.eval.batch_size = BATCH[platform]
            config.augment.size = SIZE
        config.update_from_flattened_dict(changes)
    canvas = tuple(config.augment.size)
    return plan.Recipe(config, CAMVID, canvas, canvas)


def main() -> None:
    """Prints the row."""
    name, chip, width, step, changes, *text = sys.argv[1:]
    target = targets.target(chip, "")
    if not target.own:
        raise SystemExit(targets.missing(target))
    compile_ = {"train": plan.training_step, "evaluate": plan.evaluation_step}[step]
    made = recipe(name, target.chip.platform, width, json.loads(changes))
    kept = []
    traffic = optimised.traffic
    optimised.traffic = lambda text: kept.append(text) or traffic(text)
    start = time.process_time()
    program = compile_(made, target)
    if text and kept:
        pathlib.Path(text[0]).write_text(kept[0])
    memory, moved = program.memory, program.traffic
    row = {
        "images": made.config.batch_size if step == "train" else made.config.eval.batch_size,
        "size": made.canvas,
        "flops": program.operations.products + program.operations.again,
        "seconds": program.seconds,
        "cpu_seconds": time.process_time() - start,
        "refused": memory is None,
    }
    if memory is not None:
        row |= {
            "state": memory.state,
            "temporary": memory.temporary,
            "total": memory.total,
            "bytes": moved.bytes,
            "by_kind": dict(list(moved.by_kind.items())[:8]),
        }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
