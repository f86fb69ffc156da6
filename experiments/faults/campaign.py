"""The campaign of faults: what happens to a run, an evaluation or a reader when something breaks.

    python -m experiments.faults.campaign --hardware=TEXT [--only=files,values] [--output=DIR]

Every case first proves that its fault occurred. Writes faults.json and README.md beside this file,
or into `--output`; a kind that was not tried keeps the rows that are there.
"""

import argparse
import json
import pathlib
import tempfile
import time

from experiments.faults import broken_files, outcome, values
from experiments.shared import pages
from segjax import files

COMMAND = "python -m experiments.faults.campaign --hardware=TEXT"

KINDS = {"files": (broken_files.run, 504), "values": (values.run, 222)}
"""Kind -> what tries it, and how many times."""


def main() -> None:
    """Tries the kinds that are asked for, says what came of them, and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="in words")
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, with commas between")
    parser.add_argument("--output", default=pathlib.Path(__file__).parent, type=pathlib.Path)
    given = parser.parse_args()
    path = given.output / "faults.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for kind in given.only.split(","):
        run, count = KINDS[kind]
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            outcomes = run(pathlib.Path(folder), count)
        told = {"rows": outcome.rows(outcomes), "bad": [one.said for one in outcome.bad(outcomes)]}
        known[kind] = pages.circumstances(COMMAND, given.hardware) | told
        files.write_json(path, known)
        print(f"{kind}: {len(outcomes)} tries in {time.monotonic() - begin:.0f} s", flush=True)
        for one in outcome.bad(outcomes):
            print(one, flush=True)
    pages.write(given.output / "README.md", page(known))


def page(known: dict) -> list[str]:
    """The paragraphs of the page."""
    rows = [row for result in known.values() for row in result["rows"]]
    newest = max(known.values(), key=lambda result: result["date"])
    return [
        "# Faults",
        "What happens to a reader, a start or a run when something breaks. Every case first proves "
        "that its fault occurred.",
        pages.block(COMMAND),
        pages.table(["fault", "tries", *outcome.VERDICTS], rows),
        "*Survived*: the result is the one without the fault, or the format cannot tell (the coded "
        "data of JPEG, WebP and TIFF have no checksums). *Refused*: one line that names the key or "
        "the file. *Lost*, *silent* and *traceback* are what must not be.",
        f"{newest['hardware']}; {newest['date']}; {pages.software(newest['versions'])}. "
        f"{pages.made(newest, COMMAND)}",
    ]


if __name__ == "__main__":
    main()
