"""Importer of VGG-16 in Keras' names: `block1_conv1` to `block5_conv3`, `fc1`, `predictions`.

It reads files of every Keras: `block1_conv1/block1_conv1_W_1:0` (the release),
`block1_conv1/kernel`, `model_weights/.../kernel:0` (whole models), `layers/block1_conv1/vars/0`
(Keras 3). The first files of Keras 3 name layers by class and order only,
`layers/conv2d_1/vars/0`: they are read if `init.origin` names this origin. Poolings of Keras round
down, those of segjax round up as in Caffe: on multiples of 32 there is no difference.
"""

import re
from collections.abc import Mapping

import numpy as np

from segjax.models.backbones.vgg import DEPTHS, STAGES
from segjax.models.importers import dense, naming, subsample

_CONVOLUTIONS = {
    f"block{i + 1}_conv{block + 1}": f"backbone/{stage}/{block}/conv"
    for i, (stage, depth) in enumerate(zip(STAGES, DEPTHS, strict=True))
    for block in range(depth)
}
_DENSE = {"fc1": "backbone/fc6", "fc2": "backbone/fc7", "predictions": "head/classifier"}
_LAYERS = _CONVOLUTIONS | _DENSE
_BY_ORDER = {
    f"{kind}_{i}" if i else kind: path
    for kind, layers in (("conv2d", _CONVOLUTIONS), ("dense", _DENSE))
    for i, path in enumerate(layers.values())
}
_KINDS = {"W": "kernel", "0": "kernel", "b": "bias", "1": "bias"}


def is_vgg(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds a Keras VGG."""
    return any("block1_conv1" in name.split("/") and _parse(name)[1] == "kernel" for name in arrays)


def vgg16(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a VGG16: see `importers.Origin`."""
    arrays, unused = without_optimizer(arrays)
    return subsample.for_rates(naming.rename(arrays, _place), shapes), unused


def without_optimizer(
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a file without those of the optimizer, and the latter with a reason."""
    unused = {name: "of the optimizer" for name in arrays if name.startswith("optimizer")}
    return {name: array for name, array in arrays.items() if name not in unused}, unused


def parts(name: str) -> list[str]:
    """The groups of a name and its last part, without the number that TensorFlow appends."""
    return re.sub(r":\d+$", "", name).split("/")


def _place(name: str, array: np.ndarray) -> tuple[str, np.ndarray] | None:
    path, kind = _parse(name)
    if not kind:
        return None
    if kind == "kernel" and path in _DENSE.values():
        array = dense.hwc_to_conv(array, 7 if path == _DENSE["fc1"] else 1)
    return f"{path}/{kind}", array


def _parse(name: str) -> tuple[str, str]:
    """(segjax's path of the layer, "kernel" or "bias"), or two empty strings."""
    *groups, last = parts(name)
    if groups[:1] == ["layers"] and groups[1:2] and groups[1] in _BY_ORDER:
        path = _BY_ORDER[groups[1]]
    else:  # a model may contain the model of the layer
        layer = next((group for group in groups if group in _LAYERS), "")
        path, last = _LAYERS.get(layer, ""), last.removeprefix(f"{layer}_")
    kind = re.sub(r"_\d+$", "", last)
    kind = _KINDS.get(kind, kind)
    return (path, kind) if path and kind in ("kernel", "bias") else ("", "")
