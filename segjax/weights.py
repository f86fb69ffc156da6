"""Shows what a file of weights holds, or writes a run's network as one.

    segjax weights show FILE
    segjax weights export --workdir=DIR [--step=best] [--weights=raw] [--output=FILE.safetensors]
    python -m segjax.weights ...

`show` prints the origin of a file, its network, the preprocessing that it expects, and its tensors.

`export` writes parameters and batch statistics under segjax's names. The header holds the
preprocessing, classes, palette and the config of the model. Another recipe starts from the file by
`--config.init.from=FILE`; any reader of safetensors opens it. `--overwrite` replaces a file.
"""

import json
import pathlib

import numpy as np
from absl import flags

from segjax import cli, files, initial_network, initial_weights, tables
from segjax import network as networks
from segjax.errors import InputError
from segjax.models.importers import weight_files
from segjax.runs import run_folder


def define_flags() -> None:
    """The flags of `export`."""
    cli.define("workdir", "step", "weights", "overwrite")
    cli.define(output=("", "file; <workdir>/weights.safetensors by default"))


def show(path: pathlib.Path) -> str:
    """The origin, preprocessing and tensors of a file, as text.

    Raises:
        InputError: if it cannot be read, or its origin is unknown.
    """
    content = initial_weights.read(path)
    arrays, preprocess = content.arrays, content.preprocess
    rows = [(name, str(list(array.shape)), str(array.dtype)) for name, array in arrays.items()]
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    count = sum(array.size for array in arrays.values())
    images = initial_weights.describe(preprocess) if preprocess else "unknown preprocessing"
    lines = [
        tables.format_table(rows, ("tensor", "shape", "type")),
        f"{len(arrays)} tensors, {count} numbers; origin {content.origin}",
        f"images: {images}",
    ]
    if content.network is not None:
        lines.append(f"network: {initial_network.describe(content.network)}")
    if content.spec is not None:
        lines.append(f"classes: {', '.join(content.spec.classes)}")
    if broken:
        lines.append(f"not finite: {', '.join(broken)}")
    return "\n".join(lines)


def export(
    workdir: pathlib.Path, step: str, which: str, output: pathlib.Path, *, overwrite: bool = False
) -> pathlib.Path:
    """Writes the network of a run as safetensors; returns the file.

    Args:
        workdir: the run folder.
        step: "best", "latest" or a step's number.
        which: "raw" or "ema" (averaged).
        output: the file.
        overwrite: whether a file there may be replaced.

    Raises:
        InputError: if there is no such checkpoint, no averaged weights, the file is there already,
            or the disk refuses.
    """
    if output.suffix != ".safetensors":
        raise InputError(f"--output: weights are written as .safetensors, got {output.name!r}.")
    files.check_free({"the weights": [output]}, overwrite=overwrite)
    run = networks.load(workdir, step, which)
    spec = run.network.model.spec
    config = json.loads(run.config.to_json())
    meta = {
        "preprocess": config["preprocess"],
        "classes": spec.classes,
        "palette": spec.palette,
        "model": config["model"],
        "step": run.step,
        "weights": which,
        "versions": run_folder.versions(),
    }
    weight_files.write(output, run.network.arrays(), meta)
    return output


def main(argv: list[str]) -> None:
    """`weights show FILE` or `weights export`."""
    words = argv[1:]
    if len(words) == 2 and words[0] == "show":
        print(show(pathlib.Path(words[1])))
    elif words == ["export"] and flags.FLAGS.workdir:
        workdir = pathlib.Path(flags.FLAGS.workdir)
        output = pathlib.Path(flags.FLAGS.output or workdir / "weights.safetensors")
        given = flags.FLAGS
        export(workdir, given.step, given.weights, output, overwrite=given.overwrite)
        print(f"Written: {output}")
    else:
        raise InputError(
            "weights does one of `show FILE` and `export --workdir=DIR`, "
            f"got {' '.join(words) or 'nothing'}."
        )


VERB = cli.Verb(define_flags, main, words=2)

if __name__ == "__main__":
    VERB.run()
