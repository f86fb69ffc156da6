"""Compares two evaluations of the same images: score differences and disagreements.

    segjax compare A B [--split=val] [--output=compare] [--data_root=DIR]
    python -m segjax.compare A B [--split=val] [--output=compare]

A and B are run folders, or files eval-*.json in them. Nothing is run again: the numbers come from
the files that `segjax evaluate` wrote, so runs, checkpoints and protocols can be compared.

Prints mIoU and the IoU of every class in percent, A less B, with the interval in which 95 % of the
differences lie when images are drawn anew. An interval without 0 says that the difference is not
due to the choice of images. OUTPUT gets `compare.json`, the same numbers and each image's share of
pixels that A and B label differently, and `disagreements.png`, the images where they differ most;
`--overwrite` replaces those of another comparison. `--data_root` is for data that have moved.
"""

import pathlib

from absl import flags

from segjax import cli
from segjax.errors import InputError
from segjax.evaluation import comparison


def define_flags() -> None:
    """The flags of the verb."""
    cli.define("data_root", "overwrite")
    cli.define(
        split=("", "split of two run folders; that of their config by default"),
        output=("compare", "folder of compare.json and disagreements.png"),
    )


def main(argv: list[str]) -> None:
    """Compares the two words of the command line."""
    if len(argv) != 3:
        raise InputError(
            "compare takes two run folders or files eval-*.json: "
            "python -m segjax.compare runs/a runs/b"
        )
    given = flags.FLAGS
    first, second = map(pathlib.Path, argv[1:])
    comparison.run(
        first,
        second,
        given.split,
        pathlib.Path(given.output),
        data_root=given.data_root,
        overwrite=given.overwrite,
    )


VERB = cli.Verb(define_flags, main, words=2)

if __name__ == "__main__":
    VERB.run()
