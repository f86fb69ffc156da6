"""Importer of DeepLab v2 on ResNet-101 in the names of github.com/kazuto1011/deeplab-pytorch.

`base.layer1.conv1.conv` (the stem), `base.layer2.block1.reduce.conv`, `base.aspp.c0`; ResNet and
DeepLab v1 have no `base.`, and `fc` as their head. The weights are those of the Caffe release or
trained like them: the 1 x 1 of a block has the stride, the stem's pooling rounds up, and norms are
frozen.
"""

import re
from collections.abc import Mapping

import numpy as np

from segjax.models.importers import pytorch

_BLOCK = re.compile(r"layer([2-5])\.block(\d+)\.(reduce|conv3x3|increase|shortcut)\.(conv|bn)")
_PLACES = {"reduce": "blocks/0", "conv3x3": "blocks/1", "increase": "blocks/2"}
_LAYERS = {
    "layer1.conv1.conv": "backbone/stem/0/conv",
    "layer1.conv1.bn": "backbone/stem/0/norm",
    "fc": "head/classifier",
}
_ASPP = re.compile(r"aspp\.c(\d+)")


def is_deeplab(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds one of this library's networks."""
    return any(_plain(name) == "layer2.block1.reduce.conv.weight" for name in arrays)


def deeplab(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a DeepLab v2: see `importers.Origin`."""
    arrays, unused = pytorch.without_counters(arrays)
    return pytorch.rename(arrays, _find), unused


def _find(layer: str) -> str | None:
    layer = _plain(layer)
    if parts := _BLOCK.fullmatch(layer):
        stage, block, place, kind = parts.groups()
        kind = "norm" if kind == "bn" else kind
        return f"backbone/stage{stage}/{int(block) - 1}/{_PLACES.get(place, place)}/{kind}"
    if branch := _ASPP.fullmatch(layer):
        return f"head/branches/{branch[1]}"
    return _LAYERS.get(layer)


def _plain(name: str) -> str:
    """A name without the prefix of the wrapper that runs the network at several scales."""
    return name.removeprefix("base.")
