"""Importer of VGG-16 and VGG-16-BN in torchvision's names: `features.N.weight`.

Poolings of torchvision round down, those of segjax round up as in Caffe: on multiples of 32 there
is no difference.
"""

from collections.abc import Mapping

import numpy as np

from segjax.models.backbones.vgg import DEPTHS, STAGES
from segjax.models.importers import pytorch, subsample

_DENSE = {
    "classifier.0": "backbone/fc6",
    "classifier.3": "backbone/fc7",
    "classifier.6": "head/classifier",
}
_FLATTENED = {"backbone/fc6": 7}


def is_vgg(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds a torchvision VGG."""
    return "features.0.weight" in arrays


def has_batch_norm(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds a torchvision VGG with batch norm."""
    return is_vgg(arrays) and "features.1.running_mean" in arrays


def is_features(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds IMAGENET1K_FEATURES, whose classifier is NaN throughout."""
    classifier = arrays.get("classifier.0.weight")
    return is_vgg(arrays) and classifier is not None and bool(np.isnan(classifier).all())


def vgg16(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a vgg16: see `importers.Origin`."""
    find = (_convolutions(2) | _DENSE).get
    return subsample.for_rates(pytorch.rename(arrays, find, _FLATTENED), shapes), {}


def vgg16_bn(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a vgg16_bn: see `importers.Origin`.

    segjax's convolutions have no bias before a batch norm: torchvision's biases are subtracted from
    the running means, which is equivalent.
    """
    arrays, unused = pytorch.without_counters(arrays)
    convolutions, norms = _convolutions(3), {}
    for layer, path in convolutions.items():
        norm = f"features.{int(layer.removeprefix('features.')) + 1}"
        norms[norm] = f"{path.removesuffix('conv')}norm"
        bias, mean = f"{layer}.bias", f"{norm}.running_mean"
        if bias in arrays and mean in arrays and arrays[bias].shape == arrays[mean].shape:
            arrays[mean] = arrays[mean].astype(np.float32) - arrays.pop(bias)
            unused[bias] = "taken off the running mean"
    return pytorch.rename(arrays, (convolutions | norms | _DENSE).get, _FLATTENED), unused


def _convolutions(step: int) -> dict[str, str]:
    """Name of each convolution -> segjax's path; `step` modules from one to the next."""
    layers, index = {}, 0
    for stage, depth in zip(STAGES, DEPTHS, strict=True):
        for block in range(depth):
            layers[f"features.{index}"] = f"backbone/{stage}/{block}/conv"
            index += step
        index += 1  # the pooling
    return layers
