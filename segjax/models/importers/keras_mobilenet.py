"""Importer of MobileNetV2 in Keras' names: `Conv1`, `bn_Conv1`, `block_1_expand`.

It reads files of every Keras: `Conv1/Conv1/kernel:0`, `Conv1/kernel`, `layers/Conv1/vars/0` (Keras
3). The classifier is `Logits`, `predictions`, or `head` if it comes from a separate file. The
epsilon of the norms is 1e-3. For a network without the last convolution, `init.skip` names
"backbone/top/*".
"""

import re
from collections.abc import Mapping

import numpy as np

from segjax.models.importers import dense, keras, naming

_BLOCK = re.compile(r"(?:expanded_conv|block_(\d+))_(expand|depthwise|project)(_BN)?")
_LAYERS = {
    "Conv1": "backbone/stem/conv",
    "bn_Conv1": "backbone/stem/norm",
    "Conv_1": "backbone/top/conv",
    "Conv_1_bn": "backbone/top/norm",
} | dict.fromkeys(("Logits", "predictions", "head"), "head/classifier")
_NORM = {
    **dict.fromkeys(("gamma", "0"), "scale"),
    **dict.fromkeys(("beta", "1"), "bias"),
    **dict.fromkeys(("moving_mean", "2"), "mean"),
    **dict.fromkeys(("moving_variance", "3"), "var"),
}
_LAYER = dict.fromkeys(("kernel", "depthwise_kernel", "0"), "kernel") | dict.fromkeys(
    ("bias", "1"), "bias"
)


def is_mobilenet_v2(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds a MobileNetV2, with or without its classifier."""
    return any("expanded_conv_depthwise" in name.split("/") for name in arrays)


def mobilenet_v2(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a MobileNetV2: see `importers.Origin`."""
    arrays, unused = keras.without_optimizer(arrays)
    return naming.rename(arrays, _place), unused


def _place(name: str, array: np.ndarray) -> tuple[str, np.ndarray] | None:
    *groups, last = keras.parts(name)
    path = next(filter(None, map(_path, groups)), "")
    kinds = _NORM if path.endswith("norm") else _LAYER
    if not path or last not in kinds:
        return None
    if path.endswith("depthwise") and array.ndim == 4:
        array = array.swapaxes(2, 3)  # [3, 3, C, 1] -> [3, 3, 1, C]
    elif kinds[last] == "kernel":
        array = dense.hwc_to_conv(array, 1)
    return f"{path}/{kinds[last]}", array


def _path(layer: str) -> str:
    """segjax's path of a layer, or ""."""
    parts = _BLOCK.fullmatch(layer)
    if not parts:
        return _LAYERS.get(layer, "")
    number, place, norm = parts.groups()
    block = f"backbone/blocks/{number or 0}"
    if place == "depthwise":
        return f"{block}/norm" if norm else f"{block}/depthwise"
    return f"{block}/{place}/{'norm' if norm else 'conv'}"
