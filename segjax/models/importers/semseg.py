"""Importer of PSPNet and ResNets with a deep stem in the names of github.com/hszhao/semseg.

PSPNet: `layer0.0` (the stem), `layer1.0.conv1`, `ppm.features.0.1`, `cls.0`, `aux.0`. The 3 x 3 of
a block has the stride, all blocks of a stage have one dilation, and dropout removes whole maps
(`drop_maps`). The ResNets, trained on ImageNet, have torchvision's names, and `conv2`, `bn2`,
`conv3`, `bn3` in the stem.
"""

import re
from collections.abc import Mapping

import numpy as np

from segjax.models.importers import pytorch, torchvision_resnet

# layer0 is a sequence: convolution, norm and ReLU three times, then a pooling.
_STEM = {
    f"layer0.{3 * i + k}": f"backbone/stem/{i}/{kind}"
    for i in range(3)
    for k, kind in enumerate(("conv", "norm"))
}
_SIDES = {"cls": "head", "aux": "aux"}
_SCALE = re.compile(r"ppm\.features\.(\d+)\.([12])")


def is_pspnet(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds a PSPNet."""
    return {"layer0.0.weight", "ppm.features.0.1.weight"} <= set(arrays)


def is_resnet(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds a ResNet with a stem of three convolutions."""
    names = {"conv1.weight", "conv2.weight", "conv3.weight", "layer1.0.conv1.weight"}
    return names <= set(arrays)


def pspnet(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a PSPNet: see `importers.Origin`."""
    arrays, unused = pytorch.without_counters(arrays)
    return pytorch.rename(arrays, _find), unused


def _find(layer: str) -> str | None:
    if layer in _STEM:
        return _STEM[layer]
    part, _, rest = layer.partition(".")
    if part in _SIDES and rest in torchvision_resnet.FCN_HEAD:
        return f"{_SIDES[part]}/{torchvision_resnet.FCN_HEAD[rest]}"
    if scale := _SCALE.fullmatch(layer):
        return f"head/pyramid/reduce/{scale[1]}/{'conv' if scale[2] == '1' else 'norm'}"
    return torchvision_resnet.trunk(layer) if part.startswith("layer") else None
