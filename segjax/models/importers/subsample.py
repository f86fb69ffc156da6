"""Subsampling of fc6 and fc7 of a VGG-16 for the atrous network of DeepLab.

Chen et al., ICLR 2015, section 3.1: the 7 x 7 filters of fc6 are decimated in space to 4 x 4 or
3 x 3, and 4096 filters become 1024. The release kept a random subset and does not publish it. Here
nothing is random: taps and filters are spaced evenly (the first, fourth and seventh of seven taps,
or every second; every fourth of 4096 filters), so a file always gives the same network. fc7 keeps
its weights for the filters that fc6 keeps, and all rates start with the same filters.
"""

from collections.abc import Mapping

import numpy as np

_FIRST = "backbone/fc6/0/kernel"  # in the atrous network; the plain one has backbone/fc6/kernel


def for_rates(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The arrays with fc6 and fc7 subsampled for every rate of the network.

    For a network other than the atrous one nothing changes. An array that is smaller than the
    network's does not change either: `importers.match` reports it.

    Args:
        arrays: segjax's path -> array in segjax's layout, with "backbone/fc6" and "backbone/fc7".
        shapes: path in the network -> shape.
    """
    arrays = dict(arrays)
    if _FIRST not in shapes:
        return arrays
    for layer in ("fc6", "fc7"):
        for kind in ("kernel", "bias"):
            array = arrays.pop(f"backbone/{layer}/{kind}", None)
            if array is None:
                continue
            prefix, suffix = f"backbone/{layer}/", f"/{kind}"
            for path, shape in shapes.items():
                if path.startswith(prefix) and path.endswith(suffix):
                    arrays[path] = thin(array, shape)
    return arrays


def thin(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array [k, k, C, K] or [K], subsampled evenly along every axis to `shape`.

    The first and the last tap are kept, so that the window stays as wide as it was. An array that
    is too small is returned unchanged.
    """
    if array.ndim != len(shape) or any(n < m for n, m in zip(array.shape, shape, strict=True)):
        return array
    for axis, (n, m) in enumerate(zip(array.shape, shape, strict=True)):
        if array.ndim == 4 and axis < 2:
            kept = np.linspace(0, n - 1, m) if m > 1 else np.array([(n - 1) / 2])
            kept = np.round(kept).astype(np.int64)
        else:
            kept = np.arange(m) * n // m
        array = array.take(kept, axis)
    return array
