"""Renaming of a file's tensors to segjax's paths that loses none."""

from collections.abc import Callable, Mapping

import numpy as np

Place = Callable[[str, np.ndarray], tuple[str, np.ndarray] | None]
"""(name in the file, array) -> (segjax's path, array in segjax's layout), or None: unknown."""


def rename(arrays: Mapping[str, np.ndarray], place: Place) -> dict[str, np.ndarray]:
    """All tensors by segjax's paths, in segjax's layout.

    A tensor that `place` does not know keeps its name, and so does the second of two tensors for
    one path: `importers.match` reports them.

    Args:
        arrays: name in the file -> array.
        place: see `Place`.
    """
    renamed = {}
    for name, array in arrays.items():
        path, converted = place(name, array) or (name, array)
        if path in renamed:
            path, converted = name, array
        renamed[path] = converted
    return renamed
