"""Importer of DeepLab v3 on MobileNetV2 in the names of TensorFlow's research code.

The files are TensorFlow Lite models. `MobilenetV2/expanded_conv_1/expand/weights`,
`aspp0/weights`; kernels are [K, k, k, C], those of depthwise convolutions [1, 3, 3, C]. Batch norm
is folded into the convolutions: norm "none". The head has no rates, the order "pool_first", and the
`align` "corners".
"""

import re
from collections.abc import Mapping

import numpy as np

from segjax.models.importers import dense, naming

_BLOCK = re.compile(r"MobilenetV2/expanded_conv(?:_(\d+))?/(expand|depthwise|project)")
_LAYERS = {
    "MobilenetV2/Conv": "backbone/stem/conv",
    "aspp0": "head/aspp/point/conv",
    "image_pooling": "head/aspp/image/conv",
    "concat_projection": "head/aspp/project/conv",
    "logits/semantic": "head/score",
}


def is_deeplab_v3(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds this network."""
    return {"MobilenetV2/Conv/weights", "aspp0/weights"} <= set(arrays)


def deeplab_v3(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a DeepLab v3: see `importers.Origin`."""
    return naming.rename(arrays, _place), {}


def _place(name: str, array: np.ndarray) -> tuple[str, np.ndarray] | None:
    layer, _, kind = name.rpartition("/")
    path = _path(layer)
    if not path or kind not in ("weights", "bias"):
        return None
    if kind == "bias":
        return f"{path}/bias", array
    if path.endswith("depthwise"):
        return f"{path}/kernel", array.transpose(1, 2, 0, 3) if array.ndim == 4 else array
    return f"{path}/kernel", dense.from_ohwi(array)


def _path(layer: str) -> str | None:
    parts = _BLOCK.fullmatch(layer)
    if not parts:
        return _LAYERS.get(layer)
    number, place = parts.groups()
    return f"backbone/blocks/{number or 0}/{place}{'' if place == 'depthwise' else '/conv'}"
