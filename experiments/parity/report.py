"""The pages of this room: NAME.json and NAME.md."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.shared import pages
from segjax import files


def write(name: str, about: Mapping[str, Any], measured: Mapping, parts: Sequence[str]) -> None:
    """Writes both files beside this one.

    Args:
        name: of the files.
        about: `pages.circumstances`, and the oracle in words.
        measured: what else the JSON file holds.
        parts: the page's title, and the paragraphs behind the command and the circumstances.
    """
    folder = pathlib.Path(__file__).parent
    files.write_json(folder / f"{name}.json", {**about, **measured})
    title, *rest = parts
    where = (
        f"{about['oracle']}; {about['hardware']}; {about['date']}; "
        f"{pages.software(about['versions'])}; made on top of commit {about['commit']}."
    )
    pages.write(folder / f"{name}.md", [title, pages.block(about["command"]), where, *rest])
