"""All verbs under one name: segjax VERB [--flag=value ...]."""

import importlib
import os
import sys

from segjax import __version__
from segjax.errors import near

# Verb -> its module, and what it does.
VERBS = {
    "train": ("main", "runs a recipe: trains a network, or a classical method over a data set"),
    "evaluate": ("evaluate", "scores a checkpoint under a stated protocol"),
    "budget": ("budget", "what a training will need: memory, time, the largest batch"),
    "compare": ("compare", "compares the scores of two runs, with intervals"),
    "predict": ("predict", "labels images"),
    "prepare": ("prepare", "looks at a data set and checks it"),
    "weights": ("weights", "shows a file of weights, or writes a run's network as one"),
    "recipes": ("recipes", "lists the recipes, their words and what was measured"),
}


def main() -> None:
    """Runs the verb that the command line names, or lists them."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in VERBS:
        # As `python -m` does: user modules named in a recipe lie in the current folder.
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        sys.argv[:] = [f"segjax {verb}", *sys.argv[2:]]
        importlib.import_module(f"segjax.{VERBS[verb][0]}").VERB.run()
    elif verb == "--version":
        print(f"segjax {__version__}")
    else:
        print(manual())
        if verb not in ("--help", "-h", "help"):
            sys.stdout.flush()
            sys.exit(f"segjax: there is no verb {verb!r}.{near(verb, VERBS)}")


def manual() -> str:
    """The verbs, a line each."""
    lines = [f"  {verb:<10}{text}" for verb, (_, text) in VERBS.items()]
    return "\n".join([str(__doc__), *lines, "", "segjax VERB --help is the manual of a verb."])


if __name__ == "__main__":
    main()
