"""Importer of SegNet, SegNet-Basic and their Bayesian forms in the names of the Caffe release.

github.com/alexgkendall/SegNet-Tutorial: `conv1_1`, `conv1_1_bn`, `conv5_3_D`, `conv1_1_D`; in Basic
`conv1`, `conv_decode4` and `conv_classifier` or `dense_softmax_inner_prod`. Bayesian SegNet for
CamVid also has a norm after `conv1_1_D`, and a classifier `camvid`: its head has the depths
(3, 2, 3, 3, 3). Tensors of layers are named as in `caffe`. Those of a norm are `/0` and `/1`, scale
and shift, and in forks of Caffe that keep running statistics `/2` and `/3`, mean and variance.

The release keeps no statistics: `compute_bn_statistics.py` merges them into scale and shift, so
that the norm is scale x + shift. Here the norm gets a mean of 0 and a variance of 1. This is exact
in float32 with the release's epsilon of 1e-9; with 1e-5 every scale is smaller by one part in
200,000. A snapshot from before that script has the same names but is another network.
"""

import re
from collections.abc import Mapping

import numpy as np

from segjax.models.backbones.vgg import DEPTHS, STAGES
from segjax.models.importers import caffe, dense, naming

_MERGED = {"mean": 0.0, "var": 1.0}
_LAYERS = {
    f"conv{i + 1}_{number}{suffix}": f"{part}/{stage}/{block}"
    for i, (stage, depth) in enumerate(zip(STAGES, DEPTHS, strict=True))
    for number in range(1, depth + 1)
    for suffix, part, block in (("", "backbone", number - 1), ("_D", "head", depth - number))
} | {
    f"{name}{i}": f"{part}/stage{i}/0"
    for i in range(1, 5)
    for name, part in (("conv", "backbone"), ("conv_decode", "head"))
}
_SCORES = ("conv_classifier", "dense_softmax_inner_prod", "camvid")
_LAST = "conv1_1_D"  # the classifier, unless a norm follows
_NORM = re.compile(r"(.+)_bn[./](weight|bias|scale|shift|mean|var|[0-3])")
_KINDS = {"weight": "scale", "shift": "bias", "0": "scale", "1": "bias", "2": "mean", "3": "var"}


def is_segnet(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds a SegNet: a decoder, or an encoder with norms."""
    signs = ("conv1_1_bn", "conv1_1_D", "conv_decode1")
    return any(name.startswith(signs) for name in arrays)


def segnet(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a SegNet: see `importers.Origin`.

    For every norm of the network without statistics in the file, merged ones are added.
    """
    normed = {parts[1] for name in arrays if (parts := _NORM.fullmatch(name))}

    def place(name, array):
        if parts := _NORM.fullmatch(name):
            if parts[1] not in _LAYERS:
                return None
            return f"{_LAYERS[parts[1]]}/norm/{_KINDS.get(parts[2], parts[2])}", _vector(array)
        layer, kind = caffe.parse(name)
        if layer in _SCORES or (layer == _LAST and _LAST not in normed):
            path = "head/score"
        elif layer in _LAYERS:
            path = f"{_LAYERS[layer]}/conv"
        else:
            return None
        if kind == "weight":
            return f"{path}/kernel", dense.from_oihw(array)
        return (f"{path}/bias", _vector(array)) if kind == "bias" else None

    converted = naming.rename(arrays, place)
    for layer in normed & _LAYERS.keys():
        norm = f"{_LAYERS[layer]}/norm"
        if not converted.keys() & {f"{norm}/{kind}" for kind in _MERGED}:
            converted |= {
                path: np.full(shapes[path], value, np.float32)
                for kind, value in _MERGED.items()
                if (path := f"{norm}/{kind}") in shapes
            }
    return converted, {}


def _vector(array: np.ndarray) -> np.ndarray:
    """A blob with at most one axis longer than one as [C]; any other blob unchanged."""
    return array.reshape(-1) if array.size == max(array.shape, default=0) else array
