"""From the names in a file to our paths, without losing a tensor on the way."""

from collections.abc import Callable, Mapping

import numpy as np

Place = Callable[[str, np.ndarray], tuple[str, np.ndarray] | None]


def rename(arrays: Mapping[str, np.ndarray], place: Place) -> dict[str, np.ndarray]:
    """Every tensor under our path, in our layout.

    Args:
        arrays: by the names in the file.
        place: (name, array) -> (our path, array in our layout), or None for a tensor that it does
            not know. That one keeps its name, and so does the second of two for one path:
            `weights.match` then reports it.
    """
    found = {}
    for name, array in arrays.items():
        path, turned = place(name, array) or (name, array)
        if path in found:
            path, turned = name, array
        found[path] = turned
    return found
