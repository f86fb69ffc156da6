"""VGG-16 and VGG-16-BN as torchvision names them: `features.N.weight`, `classifier.N.weight`.

torchvision pools rounding down, we round up as Caffe does: the same on multiples of 32.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from segjax.models.backbones.vgg import DEPTHS, STAGES
from segjax.models.weights import dense

_DENSE = {  # layer: (our path, the map it was flattened from)
    "classifier.0": ("backbone/fc6", 7),
    "classifier.3": ("backbone/fc7", 1),
    "classifier.6": ("head/classifier", 1),
}
_NORM = {
    "weight": "scale",
    "bias": "bias",
    "running_mean": "mean",
    "running_var": "var",
}


def is_vgg(names: Iterable[str]) -> bool:
    """Whether a file with these tensors is a torchvision VGG."""
    return "features.0.weight" in set(names)


def has_batch_norm(names: Iterable[str]) -> bool:
    """Whether it is one with batch norm."""
    names = set(names)
    return is_vgg(names) and "features.1.running_mean" in names


def vgg16(
    arrays: Mapping[str, np.ndarray], _paths: Iterable[str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors of vgg16 -> arrays by our paths: see `weights.Origin`."""
    return _convert(arrays, _layers(2), {})


def vgg16_bn(
    arrays: Mapping[str, np.ndarray], _paths: Iterable[str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors of vgg16_bn -> arrays by our paths.

    Our convolutions have no bias before batch norm: theirs is taken off the running mean, which
    gives the same.
    """
    layers = _layers(3)
    arrays, unused = dict(arrays), {}
    for layer in layers:
        mean = f"features.{int(layer.split('.')[1]) + 1}.running_mean"
        if f"{layer}.bias" in arrays and mean in arrays:
            arrays[mean] = arrays[mean] - arrays.pop(f"{layer}.bias")
            unused[f"{layer}.bias"] = "taken off the running mean"
    for name in [name for name in arrays if name.endswith(".num_batches_tracked")]:
        del arrays[name]
        unused[name] = "a counter"
    found, _ = _convert(arrays, layers, unused)
    for layer, path in layers.items():
        norm = f"features.{int(layer.split('.')[1]) + 1}"
        for theirs, ours in _NORM.items():
            if f"{norm}.{theirs}" in found:
                found[f"{path.removesuffix('conv')}norm/{ours}"] = found.pop(f"{norm}.{theirs}")
    return found, unused


def _layers(step: int) -> dict[str, str]:
    """Name of each convolution -> our path; `step` modules from one to the next."""
    layers, index = {}, 0
    for stage, depth in zip(STAGES, DEPTHS, strict=True):
        for block in range(depth):
            layers[f"features.{index}"] = f"backbone/{stage}/{block}/conv"
            index += step
        index += 1  # the pooling
    return layers


def _convert(arrays, layers: Mapping[str, str], unused: dict[str, str]):
    found = {}
    for name, array in arrays.items():
        layer, _, kind = name.rpartition(".")
        if layer in layers:
            path = layers[layer]
            convert = dense.from_oihw
        elif layer in _DENSE:
            path, size = _DENSE[layer]
            convert = lambda weight, size=size: dense.chw_to_conv(weight, size)  # noqa: E731
        else:
            found[name] = array
            continue
        if kind == "weight":
            found[f"{path}/kernel"] = convert(array)
        else:
            found[f"{path}/{kind}"] = array
    return found, unused
