"""PSPNet and ResNets with a deep stem as semseg names them (github.com/hszhao/semseg).

PSPNet: `layer0.0` (the stem), `layer1.0.conv1`, `ppm.features.0.1`, `cls.0`, `aux.0`; blocks stride
in the 3 x 3 and are dilated alike, dropout takes whole maps (`drop_maps`). Its ResNets, trained on
ImageNet: torchvision's names, and `conv2`, `bn2`, `conv3`, `bn3` of the stem.
"""

import re
from collections.abc import Mapping

import numpy as np

from segjax.models.importers import pytorch, torchvision_resnet

# Of layer0, a sequence: convolution, norm and ReLU three times, pooling.
_STEM = {
    f"layer0.{3 * i + k}": f"backbone/stem/{i}/{kind}"
    for i in range(3)
    for k, kind in enumerate(("conv", "norm"))
}
_SIDES = {"cls": "head", "aux": "aux"}
_SCALE = re.compile(r"ppm\.features\.(\d+)\.([12])")


def is_pspnet(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether these tensors are a PSPNet's."""
    return {"layer0.0.weight", "ppm.features.0.1.weight"} <= set(arrays)


def is_resnet(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether they are a ResNet's with a stem of three convolutions."""
    names = {"conv1.weight", "conv2.weight", "conv3.weight", "layer1.0.conv1.weight"}
    return names <= set(arrays)


def pspnet(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors of a PSPNet -> arrays by our paths: see `weights.Origin`."""
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
