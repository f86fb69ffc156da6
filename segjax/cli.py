"""Verbs: programs with flags, a manual and one clear line for bad input; the flags they share."""

import dataclasses
import logging as std_logging
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from segjax.configuration import keys, loading, options, vocabulary
from segjax.errors import InputError


class _RecipeParser(flags.ArgumentParser):
    """Reads RECIPE[:WORD,...], where ml_collections knows paths alone.

    Options that other words of the command line set get room, though the recipe lists them not.

    Attributes:
        name: of the flag.
        added: the keys that got room.
    """

    def __init__(self, name: str):
        self.name = name
        self.added: list[str] = []

    def parse(self, path: str) -> ml_collections.ConfigDict:
        config = loading.load(path)
        self.added = options.make_room(config, dict(options.flags_of(sys.argv, self.name)))
        config.lock()
        return config


def define_recipe(name: str, text: str) -> None:
    """Defines `--name=RECIPE[:WORD,...]` and `--name.key=value`."""
    config_flags.DEFINE_config_file(name, None, text)
    flags.FLAGS[name].parser = _RecipeParser(name)


def define_config() -> None:
    """Defines `--config=RECIPE[:WORD,...]` and `--config.key=value`."""
    define_recipe("config", "recipe, such as fcn8s, fcn8s:camvid,small or configs/fcn8s.py:smoke")


@dataclasses.dataclass(frozen=True)
class Verb:
    """A program: `python -m segjax.<verb>` or `segjax <verb>`.

    Its module ends with `VERB = cli.Verb(define_flags, main)` and, where it is run as a program,
    `VERB.run()`. No flag exists before `run`, so that any number of verbs can be imported.

    Attributes:
        define_flags: defines the verb's flags.
        main: takes the words of the command line, the program's name first. An `InputError` is one
            line and exit status 1.
        words: largest number of positional words that the verb takes.
        moved: flags that the verb no longer has -> what there is instead.
    """

    define_flags: Callable[[], None]
    main: Callable[[list[str]], None]
    words: int = 0
    moved: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def run(self) -> None:
        """Runs the verb on the words of `sys.argv`."""
        others = set(flags.FLAGS)
        self.define_flags()
        names = set(flags.FLAGS) - others

        def parse(argv: list[str]) -> list[str]:
            if _HELP & set(argv):
                print(self.manual(names))
                sys.exit()
            for word in argv[1:]:
                name = word.lstrip("-").partition("=")[0]
                if word.startswith("-") and name in self.moved:
                    fail(InputError(f"--{name}: {self.moved[name]}"))
            return _parse(argv)

        app.run(self._guarded, flags_parser=parse)

    def manual(self, names: Iterable[str]) -> str:
        """The docstring of the verb's module, and its flags: those of these names."""
        shown = flags.FlagValues()
        for name in names:
            shown[name] = flags.FLAGS[name]
        doc = (sys.modules[self.main.__module__].__doc__ or "").strip()
        table = shown.get_help("  ", include_special_flags=False)
        return f"{doc}\n\nflags:\n{table}\n\nTry --helpfull to get a list of all flags."

    def _guarded(self, argv: list[str]) -> None:
        unknown = argv[1 + self.words :]
        if unknown:
            fail(InputError(f"Unknown words on the command line: {' '.join(unknown)}."))
        try:
            self.main(argv)
        except InputError as error:
            fail(error)
        except Exception as error:
            from segjax import distributed

            if (told := distributed.lost(error)) is not None:
                fail(told)
            if flags.FLAGS.pdb_post_mortem:
                raise
            traceback.print_exc()
            _leave()
        except KeyboardInterrupt:
            logging.flush()
            print("segjax: interrupted.", file=sys.stderr)
            sys.exit(130)


# `--config.model.head.norm=frozen`: a norm is a group of keys, and its name the one that is needed.
_NORM = re.compile(r"^(--?config\.model\.(?:backbone|head|aux)\.norm)=(\w+)$")
_HELP = {"--help", "-help", "--helpshort", "-helpshort", "-h", "-?"}

# Flags of several verbs: default and help.
_SHARED = {
    "workdir": ("", "the run folder"),
    "split": ("", "split of the data set; the config's by default"),
    "step": ("best", "best, latest, or a step's number"),
    "protocol": ("", "as config.eval.protocol; the run's by default"),
    "crf": ("", "preset, key=value ...; none; the run's by default"),
    "input": ("", "an image, or a folder of them"),
    "data_root": ("", "folder where the data set lies now; the config's by default"),
    "output": ("out", "folder for what is written"),
}


def define(*names: str, **others: tuple[str, str]) -> None:
    """Defines flags that several verbs share.

    Args:
        names: names in `_SHARED`, or "config", "weights", "overwrite" or "distributed".
        others: name -> (default, help) to override those of a shared flag.
    """
    whole = {
        "config": define_config,
        "weights": _define_weights,
        "overwrite": _define_overwrite,
        "distributed": _define_processes,
    }
    for name in names:
        whole[name]() if name in whole else flags.DEFINE_string(name, *_SHARED[name])
    for name, (default, text) in others.items():
        if name not in _SHARED:
            raise ValueError(f"{name} is no flag that verbs share; shared: {', '.join(_SHARED)}.")
        flags.DEFINE_string(name, default, text)


def _define_weights() -> None:
    flags.DEFINE_enum("weights", "raw", ["raw", "ema"], "trained weights, or their average")


def _define_overwrite() -> None:
    flags.DEFINE_boolean("overwrite", False, "replace files of the same names, but never an input")


def _define_processes() -> None:
    flags.DEFINE_string("coordinator", "", "host:port of process 0, for runs on several hosts")
    flags.DEFINE_integer("processes", 0, "number of processes, with --coordinator")
    flags.DEFINE_integer("process_id", -1, "this process, from 0, with --coordinator")
    flags.DEFINE_enum(
        "distributed",
        "auto",
        ["auto", "on", "off"],
        "auto: where the cluster's environment (Slurm, Open MPI, Cloud TPU, JAX_COORDINATOR_"
        "ADDRESS) tells of several processes; on: always ask it; off: one process",
    )


def start_processes() -> None:
    """Joins the other processes as the flags of `define("distributed")` say, before JAX is used.

    Programs that are compiled from here on are kept for the next start.

    Raises:
        InputError: if three of the flags are not given together.
    """
    from segjax import distributed  # imports JAX, which a manual does not need
    from segjax.compilers import cache

    cache.keep()
    given = flags.FLAGS
    distributed.start(given.coordinator, given.processes, given.process_id, given.distributed)


def config() -> ml_collections.ConfigDict:
    """The config of `--config`, its values checked.

    Raises:
        InputError: if the flag was not given, or a key holds what it may not.
    """
    if flags.FLAGS.config is None:
        raise InputError("--config=RECIPE is needed, such as --config=fcn8s.")
    keys.check(flags.FLAGS.config)
    parser = flags.FLAGS["config"].parser
    if isinstance(parser, _RecipeParser):
        options.check(flags.FLAGS.config, parser.added)
    return place_data(flags.FLAGS.config)


def place_data(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with its data set at `--data_root`, where a verb has that flag and it was given.

    The run's data are known by their fingerprint, not by their place.
    """
    if "data_root" in flags.FLAGS and flags.FLAGS.data_root:
        with config.unlocked():
            config.data.root = flags.FLAGS.data_root
    return config


def workdir() -> pathlib.Path:
    """`--workdir`, or runs/<recipe>[-<word>...], the same for the same words."""
    if flags.FLAGS.workdir:
        return pathlib.Path(flags.FLAGS.workdir)
    given = config_flags.get_config_filename(flags.FLAGS["config"])
    path, _, words = given.partition(":")
    return pathlib.Path(vocabulary.run_folder(pathlib.Path(path).stem, words))


def fail(error: Exception) -> NoReturn:
    """Prints the error as one line and ends the process with status 1."""
    print(f"segjax: {' '.join(str(error).split())}", file=sys.stderr)
    _leave()


def _leave() -> NoReturn:
    """Ends the process with status 1, at once.

    `sys.exit` waits for other processes of the run, which need not come, and for threads: those of
    a save that failed wait twenty minutes for the part that is missing.
    """
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _parse(argv: list[str]) -> list[str]:
    """absl's parsing, with one line for a wrong flag, config key or value."""
    # ml_collections reads keys as Python, where `from` is no name; it looks into sys.argv itself.
    argv[:] = [re.sub(r"^(--?config\.init)\.from\b", r"\1['from']", word) for word in argv]
    argv[:] = [_NORM.sub(r"\1={'name': '\2'}", word) for word in argv]
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_of_interest)
    try:
        return flags.FLAGS(argv)
    except InputError as error:
        fail(error)
    except (AttributeError, KeyError) as error:  # of ml_collections, with its "Did you mean"
        text = str(error.args[0]).replace("\\", "")  # one error may quote another
        name, hint = re.search(r"'(\w+)'", text), re.search(r"Did you mean [^?]*\?", text)
        told = f"unknown config key {_whole_key(name[1]) if name else text!r}."
        fail(InputError(f"{told} {hint[0]}" if hint else told))
    except (flags.Error, TypeError, ValueError) as error:
        text = str(error).removeprefix("flag ")
        wrong = re.match(r"--config\.([\w.'\[\]]+)=(.*?): ", text, re.DOTALL)
        if wrong and keys.is_key(key := wrong[1].replace("['from']", ".from")):
            text = keys.complaint(key, wrong[2])
        fail(InputError(text))


def _whole_key(part: str) -> str:
    """The key of the command line that has this part, of which ml_collections tells no more."""
    keys_given = (key for key, _ in options.flags_of(sys.argv, "config"))
    return next((key for key in keys_given if part in key.split(".")), part)


def _of_interest(record: std_logging.LogRecord) -> bool:
    """Whether to log a record: from segjax, or an error of another library except orbax.

    Orbax also raises its errors, and `checkpoint` reports them in one line.
    """
    path = pathlib.Path(record.pathname)
    if pathlib.Path(__file__).parent in path.parents:
        return True
    return record.levelno >= std_logging.ERROR and "orbax" not in path.parts
