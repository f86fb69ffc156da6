"""Command lines of verbs, parsed and not run: python -m tests.parsing < commands.json.

Reads a JSON list of [verb, argument, ...] and prints a JSON list: for each what is wrong with it,
or "". Every command is parsed in a process of its own, as flags can be defined only once.
"""

import dataclasses
import importlib
import json
import os
import sys
import tempfile

from absl import flags

from segjax import __main__ as verbs
from segjax import crf
from segjax.configuration import keys
from segjax.evaluation import views
from segjax.photographs import saves

_PARSED = 7  # the exit status of a command that its verb takes


def check(_argv: list[str]) -> None:
    """In place of a verb's main: checks what the flags hold, and ends the process."""
    given = flags.FLAGS
    if "config" in given and given.config is not None:
        keys.check(given.config)
    if "protocol" in given and given.protocol:
        views.parse(given.protocol)
    if "crf" in given and given.crf not in ("", "none"):
        crf.parse(given.crf)
    if "save" in given and given.save:
        saves.parse(given.save, {*saves.OF_NETWORKS, *saves.OF_METHODS})
    os._exit(_PARSED)


def complaint(verb: str, *arguments: str) -> str:
    """The error of a command line; "" if its verb takes it."""
    if verb not in verbs.VERBS:
        return f"there is no verb {verb!r}"
    if "--help" in arguments:
        return ""
    module = importlib.import_module(f"segjax.{verbs.VERBS[verb][0]}")
    with tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            os.dup2(errors.fileno(), 2)
            sys.argv = [f"segjax {verb}", *arguments]
            dataclasses.replace(module.VERB, main=check).run()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        return "" if status == _PARSED else errors.read() or f"exit status {status}"


if __name__ == "__main__":
    done = [complaint(*command) for command in json.load(sys.stdin)]
    print(json.dumps(done))
