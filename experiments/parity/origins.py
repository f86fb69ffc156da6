"""Origins of weights: those that users load, and one that only a comparison needs."""

import re
from collections.abc import Mapping

import numpy as np

from segjax.models import importers
from segjax.models.importers import pytorch, torchvision_resnet

_STEM = {"layer0.0": "conv1", "layer0.1": "bn1"}
_LINE = re.compile(r"gcm([1-4])\.conv_([lr])([12])")
_EDGE = re.compile(r"brm([1-9])\.conv([12])")
_EDGES = {
    **{str(i): f"stage{6 - i}_edge" for i in range(1, 5)},
    **{str(i): f"stage{9 - i}_sum" for i in range(5, 8)},
    "8": "half",
    "9": "whole",
}


def _gcn(arrays: Mapping[str, np.ndarray], _shapes: Mapping) -> tuple[dict, dict]:
    """Renames zijundeng's layers: `layer1.1.0.conv1`, `gcm1.conv_l1` of stage 5, `brm1.conv1`."""
    arrays, unused = pytorch.without_counters(arrays)
    found = pytorch.rename(arrays, _find)
    for path, array in found.items():
        if array.ndim == 4 and array.shape[0] == 1 < array.shape[1]:
            found[path] = array.transpose(1, 0, 2, 3)  # a line across stands as one down
    return found, unused


def _find(layer: str) -> str | None:
    if parts := _LINE.fullmatch(layer):
        side = {"l": "left", "r": "right"}[parts[2]]
        return f"head/stage{6 - int(parts[1])}/{side}/{int(parts[3]) - 1}"
    if parts := _EDGE.fullmatch(layer):
        return f"head/{_EDGES[parts[1]]}/{('first', 'second')[int(parts[2]) - 1]}"
    layer = _STEM.get(layer, layer).replace("layer1.1.", "layer1.")
    return torchvision_resnet.trunk(layer)


ORIGINS = importers.ORIGINS | {
    "zijundeng_gcn": importers.Origin(
        lambda arrays: "gcm1.conv_l1.weight" in arrays,
        _gcn,
        importers.ORIGINS["torchvision_resnet"].preprocess,
    )
}
