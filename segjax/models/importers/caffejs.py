"""Importer of BVLC GoogLeNet in the names of caffejs: `inception_3a/5x5_reduce_filter`.

Kernels are [K, k, k, C].
"""

from collections.abc import Mapping

import numpy as np

from segjax.models.backbones.googlenet import INCEPTIONS
from segjax.models.importers import dense, naming

_BRANCHES = {
    "1x1": "conv1x1",
    "3x3_reduce": "conv3x3_reduce",
    "3x3": "conv3x3",
    "5x5_reduce": "conv5x5_reduce",
    "5x5": "conv5x5",
    "pool_proj": "pool_proj",
}
_LAYERS = {
    "conv1/7x7_s2": "backbone/conv1/conv",
    "conv2/3x3_reduce": "backbone/conv2_reduce/conv",
    "conv2/3x3": "backbone/conv2/conv",
    "loss3/classifier": "head/classifier",
} | {
    f"inception_{module}/{theirs}": f"backbone/inception_{module}/{ours}/conv"
    for module in INCEPTIONS
    for theirs, ours in _BRANCHES.items()
}


def is_googlenet(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds a GoogLeNet."""
    return "conv1/7x7_s2_filter" in arrays


def googlenet(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a GoogLeNet: see `importers.Origin`."""
    return naming.rename(arrays, _place), {}


def _place(name: str, array: np.ndarray) -> tuple[str, np.ndarray] | None:
    layer, _, kind = name.rpartition("_")
    if layer not in _LAYERS or kind not in ("filter", "bias"):
        return None
    if kind == "filter":
        return f"{_LAYERS[layer]}/kernel", dense.from_ohwi(array)
    return f"{_LAYERS[layer]}/bias", array
