"""What the state dicts of PyTorch have in common: layers by dotted names, and counters."""

from collections.abc import Callable, Mapping

import numpy as np

from segjax.models.importers import dense, naming

_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_LAYER = {"weight": "kernel", "bias": "bias"}


def without_counters(
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(the tensors but those that count the batches of a batch norm, these with the reason)."""
    counters = [name for name in arrays if name.rpartition(".")[2] == "num_batches_tracked"]
    rest = {name: array for name, array in arrays.items() if name not in counters}
    return rest, dict.fromkeys(counters, "a counter")


def rename(
    arrays: Mapping[str, np.ndarray],
    find: Callable[[str], str | None],
    flattened: Mapping[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """Every tensor under our path, in our layout.

    Args:
        arrays: by the names in the file, without counters.
        find: name of a layer -> our path of it, or None. Of a norm the path ends in "norm"; other
            layers are convolutions, or dense ones that become convolutions.
        flattened: our path -> side of the map that a dense layer flattens, where it is not 1.
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
