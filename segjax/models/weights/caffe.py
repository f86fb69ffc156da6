"""VGG-16 and its FCNs as Caffe names their layers: `conv1_1`, `fc6`, `score_fr`, `upscore2`.

A tensor is `<layer>.weight`, `<layer>/0` or `<layer>_W`, and `<layer>.bias`, `<layer>/1` or
`<layer>_b`: what the usual converters of Caffe models write. fc6 and fc7 may be dense or
convolutions.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from segjax.models import resize
from segjax.models.backbones.vgg import DEPTHS, STAGES
from segjax.models.weights import dense

_LAYERS = {
    f"conv{i + 1}_{block + 1}": f"backbone/{stage}/{block}/conv"
    for i, (stage, depth) in enumerate(zip(STAGES, DEPTHS, strict=True))
    for block in range(depth)
} | {
    "fc6": "backbone/fc6",
    "fc7": "backbone/fc7",
    "fc8": "head/classifier",
    "score_fr": "head/score_top",
    "score_pool4": "head/score_pool4",
    "score_pool3": "head/score_pool3",
}
_LEARNED = {"upscore2": "head/up_top/kernel", "upscore_pool4": "head/up_pool4/kernel"}
_UPSAMPLINGS = (*_LEARNED, "upscore", "upscore16", "upscore8")
_NAME = re.compile(r"(.+?)(?:[./](weight|bias|0|1)|_(W|b))")
_KINDS = {
    "weight": "weight",
    "0": "weight",
    "W": "weight",
    "bias": "bias",
    "1": "bias",
    "b": "bias",
}


def is_fcn(names: Iterable[str]) -> bool:
    """Whether a file with these tensors is an FCN of the release."""
    return ("score_fr", "weight") in set(map(_parse, names))


def is_vgg(names: Iterable[str]) -> bool:
    """Whether a file with these tensors is a Caffe VGG."""
    return ("conv1_1", "weight") in set(map(_parse, names))


def fcn(
    arrays: Mapping[str, np.ndarray], paths: Iterable[str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors of an FCN or a VGG-16 -> arrays by our paths: see `weights.Origin`.

    A fixed upsampling is not a parameter of ours: its kernel is checked to be the bilinear one, on
    the diagonal of the classes, and then not used. A learned one keeps its diagonal.
    """
    paths, found, unused = set(paths), {}, {}
    for name, array in arrays.items():
        layer, kind = _parse(name)
        if layer in _LAYERS and kind:
            path = _LAYERS[layer]
            found[f"{path}/{'kernel' if kind == 'weight' else 'bias'}"] = (
                _kernel(layer, array) if kind == "weight" else array
            )
        elif layer in _UPSAMPLINGS and kind == "weight" and _is_diagonal(array):
            each = np.einsum("ccij->ijc", array)[:, :, None]
            ramp = resize.bilinear_kernel(array.shape[-1])
            if _LEARNED.get(layer) in paths:
                found[_LEARNED[layer]] = each
            elif np.allclose(each, np.outer(ramp, ramp)[:, :, None, None], atol=1e-6):
                unused[name] = "bilinear, as ours"
            else:
                found[name] = array
        else:
            found[name] = array
    return found, unused


def _parse(name: str) -> tuple[str, str]:
    """(layer, "weight" or "bias" or "") of a tensor's name."""
    parts = _NAME.fullmatch(name)
    return (parts[1], _KINDS.get(kind := parts[2] or parts[3], kind)) if parts else (name, "")


def _kernel(layer: str, weight: np.ndarray) -> np.ndarray:
    if weight.ndim == 4:
        return dense.from_oihw(weight)
    return dense.chw_to_conv(weight, 7 if layer == "fc6" else 1)


def _is_diagonal(weight: np.ndarray) -> bool:
    """Whether [K, K, k, k] lets each class feed itself alone."""
    if weight.ndim != 4 or weight.shape[0] != weight.shape[1]:
        return False
    off = ~np.eye(weight.shape[0], dtype=bool)
    return not weight[off].any()
