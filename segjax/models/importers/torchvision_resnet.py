"""Importer of ResNets in torchvision's names, alone and under its heads FCN and DeepLab v3.

`conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.downsample.0`, `fc`; in segmentation networks
`backbone.conv1`, `classifier.0` and `aux_classifier.0`. The 3 x 3 of a block has the stride, and
segmentation networks have the dilation rule "torchvision". A file with batch norms folded into the
convolutions has biases instead and fits a network of norm "none".
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

from segjax.models.importers import pytorch

_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(?:(conv|bn)([1-3])|downsample\.([01]))")
_STEM = re.compile(r"(conv|bn)([1-3])")
_KINDS = {"conv": "conv", "bn": "norm", "0": "conv", "1": "norm"}
FCN_HEAD = {"0": "conv/conv", "1": "conv/norm", "4": "score"}
_DEEPLAB_HEAD = {
    "0.convs.0.0": "aspp/point/conv",
    "0.convs.0.1": "aspp/point/norm",
    "0.convs.4.1": "aspp/image/conv",
    "0.convs.4.2": "aspp/image/norm",
    "0.project.0": "aspp/project/conv",
    "0.project.1": "aspp/project/norm",
    "1": "conv/conv",
    "2": "conv/norm",
    "4": "score",
} | {
    f"0.convs.{rate + 1}.{number}": f"aspp/atrous/{rate}/{kind}"
    for rate in range(3)
    for number, kind in enumerate(("conv", "norm"))
}


def is_resnet(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds a ResNet with a stem of one convolution, and nothing more."""
    others = {"conv2.weight", "clf_conv.weight"}  # in a deep stem, in RefineNet
    return {"conv1.weight", "layer1.0.conv1.weight"} <= set(arrays) and not others & set(arrays)


def is_fcn(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds fcn_resnet50 or fcn_resnet101."""
    return _is_segmentation(arrays) and not is_deeplab_v3(arrays)


def is_deeplab_v3(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds deeplabv3_resnet50 or deeplabv3_resnet101."""
    return _is_segmentation(arrays) and "classifier.0.project.0.weight" in arrays


def _is_segmentation(arrays: Mapping[str, np.ndarray]) -> bool:
    return {"backbone.layer1.0.conv1.weight", "classifier.4.weight"} <= set(arrays)


def resnet(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a ResNet: see `importers.Origin`."""
    arrays, unused = pytorch.without_counters(arrays)
    return pytorch.rename(arrays, lambda n: "head/classifier" if n == "fc" else trunk(n)), unused


def fcn(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts an FCN for the head "conv": see `importers.Origin`."""
    arrays, unused = pytorch.without_counters(arrays)
    return pytorch.rename(arrays, _under(FCN_HEAD)), unused


def deeplab_v3(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a DeepLab v3: see `importers.Origin`.

    The head is "deeplab_v3" with three rates, `extra_conv` and the order "pool_last".
    """
    arrays, unused = pytorch.without_counters(arrays)
    return pytorch.rename(arrays, _under(_DEEPLAB_HEAD)), unused


def trunk(layer: str) -> str | None:
    """segjax's path of a layer of a ResNet, with either stem; None for any other layer."""
    if stem := _STEM.fullmatch(layer):
        return f"backbone/stem/{int(stem[2]) - 1}/{_KINDS[stem[1]]}"
    if not (parts := _BLOCK.fullmatch(layer)):
        return None
    block = f"backbone/stage{int(parts[1]) + 1}/{parts[2]}"
    if parts[5]:
        return f"{block}/shortcut/{_KINDS[parts[5]]}"
    return f"{block}/blocks/{int(parts[4]) - 1}/{_KINDS[parts[3]]}"


def _under(head: Mapping[str, str]) -> Callable[[str], str | None]:
    """The argument `find` of `pytorch.rename` for a segmentation network with this head."""

    def find(layer):
        part, _, rest = layer.partition(".")
        if part == "backbone":
            return trunk(rest)
        if part == "classifier" and rest in head:
            return f"head/{head[rest]}"
        if part == "aux_classifier" and rest in FCN_HEAD:
            return f"aux/{FCN_HEAD[rest]}"
        return None

    return find
