"""Shows what a data set holds and checks it, before anything is trained on it.

    segjax prepare show --config=RECIPE[:WORD,...] [--split=train] [--output=out]
    segjax prepare check --config=RECIPE[:WORD,...]
    python -m segjax.prepare ...

Only the data set of the recipe matters, as of `fcn8s:camvid`, and its place, `--data_root=DIR`.

`show` writes `<name>-<split>-sheet.png`, examples with their coloured labels, and
`<name>-<split>.json`: sizes, raw ids, pixels and weights of the classes. The sheet of a data set
without classes, such as bsds500, shows the boundaries that people drew. `--overwrite` replaces
files of the same names.

`check` reads every file of every split, prints each problem on one line, and ends with status 1 if
there was one. Images with an EXIF orientation are counted, with the reading that their masks fit:
images are read upright, as viewers and annotation tools show them.
"""

from pathlib import Path

from absl import flags

from segjax import cli
from segjax.data import catalog
from segjax.data.dataset import RegionDataset
from segjax.errors import InputError
from segjax.preparation import checks, sheets


def define_flags() -> None:
    """The flags of the verb."""
    cli.define("config", "data_root", "overwrite")
    cli.define(
        split=("train", "split that `show` looks at"),
        output=("out", "folder that `show` writes to"),
    )


def main(argv: list[str]) -> None:
    """`prepare show` or `prepare check` on the data set of --config."""
    words, given = argv[1:], flags.FLAGS
    if words not in (["show"], ["check"]):
        raise InputError(
            f"prepare does one of show, check; got {' '.join(words) or 'nothing'}: "
            "python -m segjax.prepare show --config=RECIPE"
        )
    dataset = catalog.load_any(**cli.config().data)
    if isinstance(dataset, RegionDataset):
        if words == ["show"]:
            sheets.show_regions(dataset, given.split, Path(given.output), overwrite=given.overwrite)
        else:
            checks.check_regions(dataset)
    elif words == ["show"]:
        sheets.show(dataset, given.split, Path(given.output), overwrite=given.overwrite)
    else:
        checks.check(dataset)


VERB = cli.Verb(define_flags, main, words=1)

if __name__ == "__main__":
    VERB.run()
