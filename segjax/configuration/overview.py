"""Overview of the recipes: data sets, papers, parameters and measured results."""

import ast
import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from segjax import tables
from segjax.configuration import loading, vocabulary

_PAGE = """# Recipes

This page is what `segjax recipes --markdown` prints. A recipe is named with the words that change
it, `--config=RECIPE[:WORD,...]`: see [start](start.md#recipes-and-words). `segjax recipes NAME`
prints a recipe's docstring and the words specific to it.

{legend}

{table}

## Measured
Numbers of these recipes by segjax, in percent, each with the command that repeats it; those on test
take `segjax evaluate --workdir=RUN --split=test` after it.

{results}"""

_HEADER = ("recipe", "data sets", "paper", "parameters on scenes", "whole", "specific words")
_LEGEND = """Data sets: "labelled" are {labelled};
"all" are these and bsds500. The word "paper" goes with the data sets in its column, "small" with
every labelled one where a network is trained. Millions of parameters: of the network on the scenes,
where some are cut, and of the whole one for 21 classes (imagenet_heatmap: 1000)."""


@dataclasses.dataclass(frozen=True)
class Result:
    """A measured result of a recipe.

    Attributes:
        recipe: name of the recipe.
        record: repository folder with the full table, commands and hardware.
        words: words of the recipe.
        flags: further flags of the command.
        measure: name of the measure.
        val, test: its value on these splits, in percent, or None.
        note: remark for the reader.
    """

    recipe: str
    record: str
    words: str = ""
    flags: str = ""
    measure: str = "mIoU"
    val: float | None = None
    test: float | None = None
    note: str = ""

    @property
    def command(self) -> str:
        """Command that repeats the run, given $SEGJAX_DATA and $SEGJAX_WEIGHTS."""
        config = f"{self.recipe}:{self.words}" if self.words else self.recipe
        return " ".join(filter(None, [f"segjax train --config={config}", self.flags]))

    @property
    def numbers(self) -> str:
        """The splits and their values as text."""
        splits = (("val", self.val), ("test", self.test))
        return ", ".join(f"{split} {value:.2f}" for split, value in splits if value is not None)

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.command}\n    {self.measure} {self.numbers}{note}"


def measured() -> dict[str, Any]:
    """The stored measurements: `parameters` by recipe and data set, and `results`."""
    numbers: dict[str, Any] = json.loads((loading.FOLDER / "measured.json").read_text())
    return numbers


def results() -> list[Result]:
    """All stored results."""
    return [Result(**entry) for entry in measured()["results"]]


def text() -> str:
    """All recipes and results, for a terminal."""
    table = tables.format_table(list(_rows()), _HEADER)
    told = "\n".join(map(str, results()))
    return f"{table}\n\n{_legend()}\n\nMeasured, in percent:\n{told}"


def markdown() -> str:
    """The page docs/recipes.md."""
    rows = [(f"[`{name}`](../configs/{name}.py)", *rest) for name, *rest in _rows()]
    told = [
        (f"`{r.command}`", r.measure, r.numbers, r.note, f"[record](../{r.record})")
        for r in results()
    ]
    return _PAGE.format(
        legend=_legend(),
        table=_markdown_table(rows, _HEADER),
        results=_markdown_table(told, ("command", "measure", "number", "note", "record")),
    )


def describe(name: str) -> str:
    """The docstring, words and results of a recipe.

    Raises:
        InputError: if the recipe does not exist.
    """
    words = loading.module(name).WORDS
    lines = [_docstring(name), "", f"Data sets: {', '.join(words.data)}."]
    if words.trains:
        lines.append(f"`paper` goes with: {', '.join(words.paper) or 'none'}.")
    lines += [f"`{word}`: {what}." for word, what in words.own.items()]
    return "\n".join([*lines, *(f"\n{one}" for one in results() if one.recipe == name)])


def _rows() -> Iterator[tuple[str, ...]]:
    groups = {vocabulary.LABELLED: "labelled", vocabulary.DATA_SETS: "all"}
    counts = measured()["parameters"]
    for name in loading.shipped():
        words, numbers = loading.module(name).WORDS, counts.get(name, {})
        yield (
            name,
            groups.get(words.data, ", ".join(words.data)),
            ", ".join(words.paper) or "-",
            _millions(numbers, "scenes"),
            _millions(numbers, "voc2012", "imagenet"),
            ", ".join(words.own) or "-",
        )


def _millions(numbers: dict[str, int], *data: str) -> str:
    counts = [numbers[name] for name in data if name in numbers]
    return f"{counts[0] / 1e6:.2f} M" if counts else "-"


def _legend() -> str:
    return _LEGEND.format(labelled=", ".join(vocabulary.LABELLED))


def _docstring(name: str) -> str:
    path = pathlib.Path(loading.module(name).__file__ or "")
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def _markdown_table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
