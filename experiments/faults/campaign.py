"""The campaign of faults: what happens to a run, a verb or a reader when something breaks.

    python -m experiments.faults.campaign --hardware=TEXT [--only=files,values] [--output=DIR]

Every try first proves that its fault occurred. Writes faults.json and README.md beside this file,
or into `--output`, after every kind; kinds that were tried at this commit already are passed over,
so that the same command goes on where it was ended.
"""

import argparse
import collections
import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.faults import (
    broken_files,
    checkpoints,
    data,
    disk,
    kills,
    numbers,
    outcome,
    processes,
    signals,
    values,
)
from experiments.shared import pages
from segjax import files

COMMAND = "python -m experiments.faults.campaign --hardware=TEXT"


class Kind(NamedTuple):
    """A kind of fault: heading, what tries it, how many times, and what the tries are."""

    title: str
    run: Callable[[pathlib.Path, int], list[outcome.Outcome]]
    count: int
    text: str


KINDS = {
    "kills": Kind(
        "Killed",
        kills.run,
        50,
        "`kill -9` at a random moment of every phase, the same command again, up to five times a "
        "run. Weights, optimiser, scores, log and files of the end are those of a run that nobody "
        "killed, bit for bit; so everywhere below.",
    ),
    "signals": Kind(
        "Asked to stop",
        signals.run,
        20,
        "SIGTERM, Ctrl-C and SIGHUP at a random moment of every phase: status 0, 130 or 129, every "
        "step that is in the log is saved, and the same command goes on.",
    ),
    "processes": Kind(
        "Several processes",
        processes.run,
        10,
        "One of two processes is killed, frozen until the other has ended (and then woken: it may "
        "not write), or stands still for a second again and again. The other ends with a word, "
        "and both go on from the last checkpoint.",
    ),
    "disk": Kind(
        "The disk",
        disk.run,
        200,
        "Every kind of file that the verbs write, as an undisturbed command shows them, once with "
        "no space left and once without permission; then all files of a run, from a moment on. "
        "One line names the file, and the same command with room ends as if nothing had been.",
    ),
    "checkpoints": Kind(
        "Damaged checkpoints",
        checkpoints.run,
        50,
        "The newest checkpoint of a stopped run is damaged. The run says so, goes on from the one "
        "before, and saves that step anew. Where a file is damaged that no reader needs, nothing "
        "is said.",
    ),
    "data": Kind(
        "Data that change",
        data.run,
        28,
        "A file is changed while a run reads it, with 0 and 2 worker processes, and a worker is "
        "killed. Every step in the log is saved, one line names the file, and when it is mended "
        "the same command goes on.",
    ),
    "numbers": Kind(
        "Numbers",
        numbers.run,
        16,
        "Losses that are not finite, a clock that jumps, and examples whose number passes 2^31, "
        "2^32 and 2^33.",
    ),
    "files": Kind(
        "Mutated files",
        broken_files.run,
        504,
        "Images, masks and class lists with bytes cut, flipped, set, doubled, taken out or put in: "
        "read as they were, or one line. The coded data of JPEG, WebP and TIFF have no checksums: "
        "other pixels are counted as survived there, and nowhere else.",
    ),
    "values": Kind(
        "Odd values",
        values.run,
        222,
        "Values of every type and size for every config key: one line that names the key, or the "
        "step is compiled and taken.",
    ),
}


def main() -> None:
    """Tries the kinds that are asked for, says what came of them, and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="in words")
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, with commas between")
    parser.add_argument("--output", default=pathlib.Path(__file__).parent, type=pathlib.Path)
    given = parser.parse_args()
    path = given.output / "faults.json"
    for name in given.only.split(","):
        kind = KINDS[name]
        if _read(path).get(name, {}).get("commit") == pages.commit():
            print(f"{name}: tried at this commit already.", flush=True)
            continue
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            outcomes = kind.run(pathlib.Path(folder), kind.count)
        told = {"rows": outcome.rows(outcomes), "bad": [str(one) for one in outcome.bad(outcomes)]}
        made = pages.circumstances(COMMAND, given.hardware) | told
        known = _read(path) | {name: made}  # another kind may have been tried meanwhile
        files.write_json(path, known)
        pages.write(given.output / "README.md", page(known))
        print(f"{name}: {len(outcomes)} tries in {time.monotonic() - begin:.0f} s", flush=True)
        for one in outcome.bad(outcomes):
            print(one, flush=True)


def _read(path: pathlib.Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def page(known: dict) -> list[str]:
    """The paragraphs of the page."""
    known = {name: known[name] for name in KINDS if name in known}
    newest = max(known.values(), key=lambda result: result["date"])
    head = ["tries", *outcome.VERDICTS]
    sums = [[KINDS[name].title, *_sum(result["rows"])] for name, result in known.items()]
    parts = [
        "# Faults",
        "What happens to a run, a verb or a reader when something breaks. Every try first proves "
        "that its fault occurred: the process ended by that signal, the bytes differ, the error "
        "was raised. What other libraries promise: [promises](promises.md).",
        pages.block(COMMAND),
        pages.table(["kind", *head], [*sums, ["all", *_sum(sums)]]),
        "*Survived*: the end is the one without the fault. *Refused*: one line that names the key "
        "or the file, and nothing was written. *Lost*, *silent* and *traceback* are what must not "
        "be: work or a file is gone, another result without a word, an error that is no line for "
        "a user.",
        f"{newest['hardware']}; {newest['date']}; {pages.software(newest['versions'])}. The runs "
        "are FCN-8s, narrowed, on the embedded scenes: twelve steps, three evaluations. "
        f"{_commits(known)}",
    ]
    for name, result in known.items():
        parts += [f"## {KINDS[name].title}", KINDS[name].text]
        parts.append(pages.table(["fault", *head], sorted(result["rows"])))
    return parts


def _sum(rows: Sequence[Sequence[str]]) -> list[str]:
    """The sums of the columns but the first."""
    return [str(sum(int(row[column]) for row in rows)) for column in range(1, len(rows[0]))]


def _commits(known: dict) -> str:
    """Which commit each kind was tried at."""
    kinds = collections.defaultdict(list)
    for name, result in known.items():
        kinds[result["commit"]].append(KINDS[name].title.lower())
    each = [f"{', '.join(titles)} at commit {commit}" for commit, titles in kinds.items()]
    return f"Tried: {'; '.join(each)}."


if __name__ == "__main__":
    main()
