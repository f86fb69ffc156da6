"""fc6 and fc7 of a VGG-16, thinned out for the atrous network of DeepLab.

Chen et al., ICLR 2015, section 3.1: the 7 x 7 filters of fc6 are decimated in space to 4 x 4 or
3 x 3, and 4096 filters become 1024. The release kept a random subset of them that it does not
name. Here nothing is random: taps and filters are spread evenly (of seven taps the first, fourth
and seventh, or every second; of 4096 filters every fourth), so a file always gives the same
network. fc7 reads the filters that fc6 kept; every rate begins with the same ones.
"""

from collections.abc import Mapping

import numpy as np

_FIRST = "backbone/fc6/0/kernel"  # of the atrous network; the plain one has backbone/fc6/kernel


def for_rates(
    found: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Arrays by our paths, fc6 and fc7 as the network has them.

    Args:
        found: arrays in our layout, those of fc6 and fc7 under "backbone/fc6" and "backbone/fc7".
        shapes: path -> shape, of the network. If that is not the atrous one, nothing changes. Nor
            does an array of which there is too little: `weights.match` then reports it.
    """
    found = dict(found)
    if _FIRST not in shapes:
        return found
    for layer in ("fc6", "fc7"):
        for kind in ("kernel", "bias"):
            array = found.pop(f"backbone/{layer}/{kind}", None)
            if array is None:
                continue
            prefix, suffix = f"backbone/{layer}/", f"/{kind}"
            for path, shape in shapes.items():
                if path.startswith(prefix) and path.endswith(suffix):
                    found[path] = thin(array, shape)
    return found


def thin(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[k, k, C, K] or [K] -> `shape`, evenly along every axis; too small an array as it is.

    The first and the last tap are kept, for the window shall stay as wide as it was.
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
