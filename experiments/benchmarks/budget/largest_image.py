"""The largest image that trains when 1, 2, 4 or 8 chips share it (`mesh.space`).

    python experiments/benchmarks/budget/largest_image.py --chip=v5e [--config=deeplab_v3_resnet50]

Compiles the training step for two images (batch norms want two) of H x 2H in bfloat16, H a multiple
of 32 times the chips, until the next H does not fit. A row is written to
largest_image-CHIP-RECIPE.json as soon as it is known, and rows that are there are not made again.
It needs the chip's compiler (segjax[tpu] or segjax[cuda12]) and no device.
"""

import argparse
import json
import pathlib
import time

from segjax.compilers import chips, targets
from segjax.configuration import loading
from segjax.data.class_tables import CITYSCAPES
from segjax.planning import plan
from segjax.planning.largest import largest

TOPOLOGIES = {
    "tpu": {1: "1x1", 2: "1x2", 4: "2x2", 8: "2x4"},
    "cuda": {n: str(n) for n in (1, 2, 4, 8)},
}
FOLDER = pathlib.Path(__file__).parent


def row(config, chip: str, topology: str, count: int) -> dict:
    """The largest image of so many chips."""
    target = targets.target(chip, topology)
    if not target.own:
        raise SystemExit(targets.missing(target))
    devices = target.devices[:count]
    target = targets.Target(target.chip, devices, True, target.options)
    unit = 32 * count

    def compiled(height: int) -> plan.Program:
        with config.unlocked():
            config.mesh.space, config.batch_size, config.accumulate = count, 2, 1
            config.augment.size, config.dtype = (height, 2 * height), "bfloat16"
        recipe = plan.Recipe(config, CITYSCAPES, (height, 2 * height), (height, 2 * height))
        start = time.monotonic()
        made = plan.training_step(recipe, target)
        needs = f"{made.memory.total / 2**30:.2f} GiB" if made.memory else "refused"
        print(f"  {count} chips, {height}: {needs}, {time.monotonic() - start:.0f} s", flush=True)
        return made

    found = largest(compiled, unit, target.chip.usable, first=16 * unit, most=512 * unit)
    return {
        "chips": count,
        "image": [found.images, 2 * found.images],
        "gib": found.fits.memory.total / 2**30,
        "beyond_gib": found.beyond.memory and found.beyond.memory.total / 2**30,
    }


def main() -> None:
    """Adds the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chip", default="v5e")
    parser.add_argument("--config", default="deeplab_v3_resnet50")
    given = parser.parse_args()
    path = FOLDER / f"largest_image-{given.chip}-{given.config}.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    for count, topology in TOPOLOGIES[chips.CHIPS[given.chip].platform].items():
        if any(known["chips"] == count for known in rows):
            continue
        rows.append(row(loading.load(given.config), given.chip, topology, count))
        path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
