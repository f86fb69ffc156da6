"""Importer of VGG-16 and FCNs in Caffe's names: `conv1_1`, `fc6`, `score_fr`, `upscore2`.

A tensor is `<layer>.weight`, `<layer>/0` or `<layer>_W`, and `<layer>.bias`, `<layer>/1` or
`<layer>_b`, as the usual converters of Caffe models write it. fc6, fc7 and fc8 may be dense layers
or convolutions.
"""

import re
from collections.abc import Mapping

import numpy as np

from segjax.models import resize
from segjax.models.backbones.vgg import DEPTHS, STAGES
from segjax.models.importers import dense, naming, subsample

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
_SCALES = {"scale_pool4": 0.01, "scale_pool3": 0.0001}  # of `at_once`
_UPSAMPLINGS = (*_LEARNED, "upscore", "upscore16", "upscore8")
_NAME = re.compile(r"(.+?)(?:[./](weight|bias|0|1)|_(W|b))")
_KINDS = {"0": "weight", "W": "weight", "1": "bias", "b": "bias"}


def is_fcn(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds an FCN of the release, by its names."""
    return ("score_fr", "weight") in set(map(parse, arrays))


def is_vgg(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds a Caffe VGG; a SegNet, which has the same first layer, is none."""
    segnet = any(name.startswith(("conv1_1_bn", "conv1_1_D")) for name in arrays)
    return ("conv1_1", "weight") in set(map(parse, arrays)) and not segnet


def fcn(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts an FCN or a VGG-16: see `importers.Origin`.

    A fixed upsampling is no parameter in segjax: if its kernel is bilinear for each class alone,
    the tensor is not used. A learned upsampling keeps the kernels of each class alone. The factors
    of FCN-8s at once, `scale_pool4` and `scale_pool3`, are no parameters either; the shapes do not
    tell whether the head applies them (`at_once`), which `networks.caffe_fcn` does: they are not
    used if they are the release's.
    """
    unused = {}

    def place(name, array):
        layer, kind = parse(name)
        if layer in _LAYERS and kind == "bias":
            return f"{_LAYERS[layer]}/bias", _without_ones(array, 1)
        if layer in _LAYERS and kind == "weight":
            weight = _without_ones(array, 2)
            return f"{_LAYERS[layer]}/kernel", dense.chw_to_conv(weight, 7 if layer == "fc6" else 1)
        if layer in _LEARNED and kind == "weight" and _LEARNED[layer] in shapes:
            each = _per_class(array)
            return None if each is None else (_LEARNED[layer], each)
        return None

    for name, array in arrays.items():
        layer, kind = parse(name)
        learned = _LEARNED.get(layer) in shapes
        if layer in _UPSAMPLINGS and kind == "weight" and not learned and _is_bilinear(array):
            unused[name] = "bilinear, as ours"
        elif kind == "weight" and np.allclose(array, _SCALES.get(layer, np.nan), rtol=1e-3):
            unused[name] = "a factor that the head applies at once"
    rest = {name: array for name, array in arrays.items() if name not in unused}
    return subsample.for_rates(naming.rename(rest, place), shapes), unused


def learns_upsampling(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether an upsampling by 2 of a file is another than the fixed, bilinear one."""
    return any(
        parse(name)[0] in _LEARNED and parse(name)[1] == "weight" and not _is_bilinear(array)
        for name, array in arrays.items()
    )


def parse(name: str) -> tuple[str, str]:
    """The layer of a tensor's name, and "weight", "bias" or ""."""
    parts = _NAME.fullmatch(name)
    if not parts:
        return name, ""
    kind = parts[2] or parts[3]
    return parts[1], _KINDS.get(kind, kind)


def _without_ones(array: np.ndarray, ndim: int) -> np.ndarray:
    """The array without the leading axes of one that blobs of old files have.

    These have four axes: [1, 1, K, N] is a dense layer, [1, 1, 1, K] a bias.
    """
    if array.ndim == 4 and array.shape[: 4 - ndim] == (1,) * (4 - ndim):
        array = array.reshape(array.shape[4 - ndim :])
    return array


def _per_class(weight: np.ndarray) -> np.ndarray | None:
    """The kernels of an upsampling without mixing of classes; None: it mixes them.

    [K, K, k, k] with zeros off the diagonal, or [K, 1, k, k] -> [k, k, 1, K].
    """
    if weight.ndim != 4 or weight.shape[1] not in (1, weight.shape[0]):
        return None
    if weight.shape[1] == 1:
        return dense.from_oihw(weight)
    if weight[~np.eye(weight.shape[0], dtype=bool)].any():
        return None
    return np.einsum("ccij->ijc", weight)[:, :, None]


def _is_bilinear(weight: np.ndarray) -> bool:
    """Whether an upsampling is the fixed one of the release, to the precision of float16."""
    each = _per_class(weight)
    if each is None:
        return False
    ramp = resize.bilinear_kernel(weight.shape[-1])
    expected = np.outer(ramp, ramp)[:, :, None, None]
    return each.shape[:2] == expected.shape[:2] and np.allclose(each, expected, rtol=1e-3, atol=0)
