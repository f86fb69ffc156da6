"""Looks at files of weights, and writes a run's network as one.

    python -m segjax.weights show FILE
    python -m segjax.weights export --workdir=DIR [--step=best] [--output=FILE.safetensors]

`show` names the origin of a file, the images it is for, and its tensors. `export` writes parameters
and batch statistics under our own names, with preprocessing, classes, palette and the model's
config in the header: `config.init.from` takes it, and so does any reader of safetensors.
"""

import json
import pathlib

import numpy as np
from absl import flags

from segjax import cli, initial_weights, tables
from segjax import network as networks
from segjax.errors import InputError
from segjax.models import importers
from segjax.models.importers import files
from segjax.runs import run_folder


def define_flags() -> None:
    """The flags of `export`."""
    cli.define("workdir", "step", "weights")
    cli.define(output=("", "file; <workdir>/weights.safetensors by default"))


def show(path: pathlib.Path) -> str:
    """What a file holds, as text.

    Raises:
        InputError: if it cannot be read, or is of no known origin.
    """
    arrays, meta = files.read(path)
    origin = importers.origin_of(arrays, str(path))
    preprocess = meta.get("preprocess") or importers.ORIGINS[origin].preprocess
    rows = [(name, str(list(array.shape)), str(array.dtype)) for name, array in arrays.items()]
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    count = sum(array.size for array in arrays.values())
    lines = [
        tables.format_table(rows, ("tensor", "shape", "type")),
        f"{len(arrays)} tensors, {count} numbers; origin {origin}",
        f"images: {initial_weights.describe(preprocess) if preprocess else 'not said'}",
    ]
    if meta.get("classes"):
        lines.append(f"classes: {', '.join(meta['classes'])}")
    if broken:
        lines.append(f"not finite: {', '.join(broken)}")
    return "\n".join(lines)


def export(workdir: pathlib.Path, step: str, which: str, output: pathlib.Path) -> pathlib.Path:
    """Writes the network of a run as safetensors; returns the file.

    Raises:
        InputError: if there is no such checkpoint, no averaged weights, or the disk refuses.
    """
    if output.suffix != ".safetensors":
        raise InputError(f"--output: weights are written as .safetensors, got {output.name!r}.")
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
    files.write(output, run.network.arrays(), meta)
    return output


def main(argv: list[str]) -> None:
    """`weights show FILE` or `weights export`."""
    words = argv[1:]
    if len(words) == 2 and words[0] == "show":
        print(show(pathlib.Path(words[1])))
    elif words == ["export"] and flags.FLAGS.workdir:
        workdir = pathlib.Path(flags.FLAGS.workdir)
        output = pathlib.Path(flags.FLAGS.output or workdir / "weights.safetensors")
        print(f"Written: {export(workdir, flags.FLAGS.step, flags.FLAGS.weights, output)}")
    else:
        raise InputError(
            "weights does one of `show FILE` and `export --workdir=DIR`, "
            f"got {' '.join(words) or 'nothing'}."
        )


VERB = cli.Verb(define_flags, main, words=2)

if __name__ == "__main__":
    VERB.run()
