"""Helpers for all state dicts of PyTorch, which have dotted names and counters."""

from collections.abc import Callable, Mapping

import numpy as np

from segjax.models.importers import dense, naming

_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_LAYER = {"weight": "kernel", "bias": "bias"}


def without_counters(
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a file without batch norms' counters of batches, the latter with a reason."""
    counters = [name for name in arrays if name.rpartition(".")[2] == "num_batches_tracked"]
    rest = {name: array for name, array in arrays.items() if name not in counters}
    return rest, dict.fromkeys(counters, "a counter")


def rename(
    arrays: Mapping[str, np.ndarray],
    find: Callable[[str], str | None],
    flattened: Mapping[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """All tensors by segjax's paths, in segjax's layout: see `naming.rename`.

    Args:
        arrays: name in the file -> array, without counters.
        find: name of a layer -> segjax's path of it, or None. Paths of norms end in "norm"; other
            layers are convolutions, or dense layers that become convolutions.
        flattened: segjax's path -> side of the map that a dense layer flattens, if it is not 1.
    """
    flattened = flattened or {}

    def place(name, array):
        layer, _, kind = name.rpartition(".")
        path = find(layer)
        kinds = _NORM if path and path.endswith("norm") else _LAYER
        if not path or kind not in kinds:
            return None
        if kinds[kind] == "kernel":
            array = dense.chw_to_conv(array, flattened.get(path, 1))
        return f"{path}/{kinds[kind]}", array

    return naming.rename(arrays, place)
