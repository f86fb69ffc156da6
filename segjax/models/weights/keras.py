"""VGG-16 as Keras names it: `block1_conv1` to `block5_conv3`, `fc1`, `fc2`, `predictions`.

Files of every age: `block1_conv1/block1_conv1_W_1:0` (the release), `block1_conv1/kernel`,
`model_weights/.../kernel:0` (whole models), `layers/block1_conv1/vars/0` (Keras 3). Keras pools
rounding down, we round up as Caffe does: the same on multiples of 32.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from segjax.models.backbones.vgg import DEPTHS, STAGES
from segjax.models.weights import dense

_CONVOLUTIONS = {
    f"block{i + 1}_conv{block + 1}": f"backbone/{stage}/{block}/conv"
    for i, (stage, depth) in enumerate(zip(STAGES, DEPTHS, strict=True))
    for block in range(depth)
}
_DENSE = {"fc1": ("backbone/fc6", 7), "fc2": ("backbone/fc7", 1)}
_DENSE["predictions"] = ("head/classifier", 1)
_KINDS = {"W": "kernel", "0": "kernel", "b": "bias", "1": "bias"}


def is_vgg(names: Iterable[str]) -> bool:
    """Whether a file with these tensors is a Keras VGG."""
    return any(_parse(name) == ("block1_conv1", "kernel") for name in names)


def vgg16(
    arrays: Mapping[str, np.ndarray], _paths: Iterable[str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors of VGG16 -> arrays by our paths: see `weights.Origin`."""
    found = {}
    for name, array in arrays.items():
        layer, kind = _parse(name)
        if layer in _CONVOLUTIONS and kind:
            found[f"{_CONVOLUTIONS[layer]}/{kind}"] = array
        elif layer in _DENSE and kind:
            path, size = _DENSE[layer]
            dense_kernel = kind == "kernel" and array.ndim == 2
            found[f"{path}/{kind}"] = dense.hwc_to_conv(array, size) if dense_kernel else array
        else:
            found[name] = array
    return found, {}


def _parse(name: str) -> tuple[str, str]:
    """(layer, "kernel" or "bias" or "") of a tensor's name."""
    parts = name.removeprefix("model_weights/").removeprefix("layers/").split("/")
    last = re.sub(r":\d+$", "", parts[-1]).removeprefix(f"{parts[0]}_")
    kind = re.sub(r"_\d+$", "", last)
    kind = _KINDS.get(kind, kind) if len(parts) > 1 else ""
    return parts[0], kind if kind in ("kernel", "bias") else ""
