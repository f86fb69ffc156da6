"""Lists the recipes: their data sets, where `paper` goes, parameters, and what was measured.

    segjax recipes [NAME] [--markdown]
    python -m segjax.recipes [NAME] [--markdown]

NAME is one recipe: its docstring, its words, its results. `--markdown` prints the page
docs/recipes.md.
"""

from absl import flags

from segjax import cli
from segjax.configuration import overview
from segjax.errors import InputError


def define_flags() -> None:
    """The flags of the verb."""
    flags.DEFINE_bool("markdown", False, "print the page docs/recipes.md")


def main(argv: list[str]) -> None:
    """Prints the table, the page, or one recipe."""
    name = argv[1] if len(argv) > 1 else ""
    if name and flags.FLAGS.markdown:
        raise InputError("--markdown: the page is of all recipes; leave out the name.")
    if name:
        print(overview.describe(name))
    else:
        print(overview.markdown() if flags.FLAGS.markdown else overview.text())


VERB = cli.Verb(define_flags, main, words=1)

if __name__ == "__main__":
    VERB.run()
