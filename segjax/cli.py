"""What the verbs share: the config flag, the run folder, one clear line for bad input."""

import logging as std_logging
import os
import pathlib
import re
import sys
from collections.abc import Callable

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from segjax.errors import InputError


def define_config() -> None:
    """Defines `--config=configs/recipe.py[:variant,variant]` and `--config.key=value`."""
    config_flags.DEFINE_config_file(
        "config", None, "recipe, such as configs/fcn8s.py or configs/fcn8s.py:camvid,smoke",
        lock_config=True,
    )  # fmt: skip


def define_workdir() -> None:
    """Defines `--workdir`."""
    flags.DEFINE_string("workdir", "", "run folder; runs/<recipe>[-<variants>] by default")


def config() -> ml_collections.ConfigDict:
    """The config of `--config`.

    Raises:
        InputError: if the flag was not given.
    """
    if flags.FLAGS.config is None:
        raise InputError("--config=configs/RECIPE.py is needed.")
    path, _, _ = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    if not pathlib.Path(path).is_file():  # ml_collections only fails at the first use
        raise InputError(f"--config: there is no file {path}.")
    return flags.FLAGS.config


def workdir() -> pathlib.Path:
    """`--workdir`, or runs/<recipe>[-<variants>]."""
    if flags.FLAGS.workdir:
        return pathlib.Path(flags.FLAGS.workdir)
    given = config_flags.get_config_filename(flags.FLAGS["config"])
    path, _, variants = given.partition(":")
    name = pathlib.Path(path).stem
    return pathlib.Path("runs") / "-".join([name, *filter(None, variants.split(","))])


def run(main: Callable[[list[str]], None], *, words: int = 0) -> None:
    """Runs a verb that takes up to `words` words; an `InputError` is one line and exit status 1."""

    def guarded(argv: list[str]) -> None:
        if argv[1 + words :]:
            fail(InputError(f"Unknown words on the command line: {' '.join(argv[1 + words :])}."))
        try:
            main(argv)
        except InputError as error:
            fail(error)

    app.run(guarded, flags_parser=_parse)


def fail(error: Exception) -> None:
    """Prints the error as one line and ends the process with status 1."""
    logging.flush()
    sys.stdout.flush()
    print(f"segjax: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    os._exit(1)  # not sys.exit: with several processes it would wait for peers that need not come


def _parse(argv: list[str]) -> list[str]:
    """absl's own parsing, but a wrong flag, config key or value is one line."""
    # ml_collections reads keys as Python, where `from` is no name; it looks into sys.argv itself.
    argv[:] = [re.sub(r"^(--?config\.init)\.from\b", r"\1['from']", word) for word in argv]
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_of_interest)
    try:
        return flags.FLAGS(argv)
    except InputError as error:
        fail(error)
    except (AttributeError, KeyError) as error:  # of ml_collections, with its "Did you mean"
        text = str(error.args[0]).replace("\\n", " ").replace("\\'", "'").strip("\"'")
        fail(InputError(f"unknown config key '{text}"))
    except (flags.Error, TypeError, ValueError, ImportError) as error:
        # ml_collections wraps a recipe's own error, traceback and all, into its flag's.
        own = re.search(r"InputError: (.*)", str(error))
        fail(InputError(f"--config: {own[1]}" if own else str(error)))


def _of_interest(record) -> bool:
    """Our own lines, and the errors of others; not orbax's, fifty a save.

    What orbax calls an error it also raises, and `checkpoint` says it in one line.
    """
    path = pathlib.Path(record.pathname)
    if pathlib.Path(__file__).parent in path.parents:
        return True
    return record.levelno >= std_logging.ERROR and "orbax" not in path.parts
