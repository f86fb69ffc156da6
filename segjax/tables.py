"""Plain-text tables for a terminal."""

import math
from collections.abc import Sequence

import numpy as np


def format_table(rows: Sequence[Sequence], header: Sequence[str]) -> str:
    """A plain-text table, a rule under its header; columns that hold a number are right-aligned.

    A float is written with four decimals, nan as "-", everything else by `str`.

    Raises:
        ValueError: if a row has another length than the header.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    columns = list(zip(header, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [any(_is_number(text) for text in column[1:]) for column in columns]

    def line(texts: Sequence[str]) -> str:
        aligned = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(texts, widths, right, strict=True)
        ]
        return "  ".join(aligned).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(header), rule, *map(line, cells)])


def _cell(value: object) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.4f}" if math.isfinite(value) else "-"
    return str(value)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
