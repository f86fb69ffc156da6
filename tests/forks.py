"""Verbs in forks of one process that has imported them: most of a short verb's time are imports.

`python -m tests.forks` reads a JSON object a line, with `module`, `arguments`, `folder`,
`environment` and the files `output` and `errors`, and answers with the exit status. A fork runs the
module as `python -m` does; variables that JAX reads when it is imported are the first process's.
"""

import importlib
import json
import os
import runpy
import sys

from segjax import __main__ as verbs


def serve() -> dict | None:
    """Waits for requests; returns in a fork, with its request, and at the end with None."""
    for line in sys.stdin:
        request: dict = json.loads(line)
        child = os.fork()
        if child == 0:
            return request
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def become(request: dict) -> None:
    """Runs a module in this process as `python -m` would."""
    streams = (
        (os.devnull, os.O_RDONLY),
        (request["output"], os.O_WRONLY),
        (request["errors"], os.O_WRONLY),
    )
    for number, (path, mode) in enumerate(streams):
        os.dup2(os.open(path, mode), number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:0] = [request["folder"], *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    module = request["module"]
    sys.modules.pop(module, None)  # it is run once more, under the name __main__
    sys.argv = [module, *request["arguments"]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name, _ in verbs.VERBS.values():
        importlib.import_module(f"segjax.{name}")
    if (asked := serve()) is not None:
        become(asked)
