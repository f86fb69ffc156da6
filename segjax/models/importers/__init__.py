"""Importers of weights from other libraries, and the strict match of a file with a network.

An origin is a family of weight files, such as those of torchvision's ResNets. Its importer, a
module of this package, recognises its files and converts their tensors to segjax's paths and
layout. `match` then compares the result with a network: every tensor has its place, or one error
lists all that have none.
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from segjax.errors import InputError
from segjax.models.importers import (
    caffe,
    caffe_segnet,
    caffejs,
    deeplab_pytorch,
    drsleep_refinenet,
    keras,
    keras_mobilenet,
    networks,
    semseg,
    tflite,
    torchvision,
    torchvision_resnet,
)

Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]

_LISTED = 6  # number of names of one kind in a message


@dataclasses.dataclass(frozen=True)
class Origin:
    """A family of weight files and its importer.

    Attributes:
        recognise: whether a file belongs to the family: (name in the file -> array) -> bool.
        convert: (name in the file -> array, path in the network -> shape) -> (segjax's path ->
            array, name -> the reason why the tensor is not used). A tensor that the importer does
            not know keeps its name.
        preprocess: normalisation of the family's networks: `mean`, `std` (RGB, 0 to 255) and `bgr`
            as in `config.preprocess`; None: the file contains it.
        network: (name in the file -> array, `convert`'s first result) -> the network that the file
            belongs to; None: the file contains it.
        labels: data sets that its networks label; the one with as many classes as a file names
            them.
    """

    recognise: Callable[[Arrays], bool]
    convert: Callable[[Arrays, Shapes], tuple[dict[str, np.ndarray], dict[str, str]]]
    preprocess: Mapping[str, Any] | None
    network: Callable[[Arrays, Arrays], networks.Network] | None = None
    labels: tuple[str, ...] = ()


_IMAGENET_RGB = {
    "mean": (123.675, 116.28, 103.53),  # 255 x (0.485, 0.456, 0.406)
    "std": (58.395, 57.12, 57.375),  # 255 x (0.229, 0.224, 0.225)
    "bgr": False,
}


def _caffe(red: float, green: float, blue: float, *, bgr: bool = True) -> dict[str, Any]:
    return {"mean": (red, green, blue), "std": (1.0, 1.0, 1.0), "bgr": bgr}


def _grey(middle: float) -> dict[str, Any]:
    return {"mean": (middle,) * 3, "std": (middle,) * 3, "bgr": False}


def _unchanged(arrays: Arrays, _shapes: Shapes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    return dict(arrays), {}


# The data sets that segmentation networks are published for.
_VOC = ("voc2012",)
_THREE = ("voc2012", "cityscapes", "ade20k")

# The origin of a file is the first that recognises it, unless `init.origin` names another.
ORIGINS: Mapping[str, Origin] = {
    "segjax": Origin(
        lambda arrays: any(n.startswith("backbone/") for n in arrays), _unchanged, None
    ),
    "torchvision_vgg16_bn": Origin(
        torchvision.has_batch_norm, torchvision.vgg16_bn, _IMAGENET_RGB, networks.torchvision_vgg
    ),
    # IMAGENET1K_FEATURES: weights of Caffe for RGB of 0 to 1; its classifier is NaN.
    "torchvision_vgg16_features": Origin(
        torchvision.is_features,
        torchvision.vgg16,
        _caffe(123.0, 117.0, 104.0, bgr=False),
        networks.torchvision_vgg,
    ),
    "torchvision_vgg16": Origin(
        torchvision.is_vgg, torchvision.vgg16, _IMAGENET_RGB, networks.torchvision_vgg
    ),
    "keras_vgg16": Origin(
        keras.is_vgg, keras.vgg16, _caffe(123.68, 116.779, 103.939), networks.keras_vgg
    ),
    "caffe_fcn": Origin(
        caffe.is_fcn,
        caffe.fcn,
        _caffe(122.67892, 116.66877, 104.00699),
        networks.caffe_fcn,
        _VOC,
    ),
    "caffe_vgg16": Origin(
        caffe.is_vgg, caffe.fcn, _caffe(123.68, 116.779, 103.939), networks.caffe_vgg
    ),
    "caffe_segnet": Origin(
        caffe_segnet.is_segnet,
        caffe_segnet.segnet,
        _caffe(0, 0, 0),
        networks.caffe_segnet,
        ("camvid",),
    ),
    "caffejs_googlenet": Origin(
        caffejs.is_googlenet, caffejs.googlenet, _caffe(123, 117, 104), networks.googlenet
    ),
    "torchvision_resnet": Origin(
        torchvision_resnet.is_resnet, torchvision_resnet.resnet, _IMAGENET_RGB, networks.resnet
    ),
    "torchvision_fcn": Origin(
        torchvision_resnet.is_fcn,
        torchvision_resnet.fcn,
        _IMAGENET_RGB,
        networks.torchvision_fcn,
        _VOC,
    ),
    "torchvision_deeplab_v3": Origin(
        torchvision_resnet.is_deeplab_v3,
        torchvision_resnet.deeplab_v3,
        _IMAGENET_RGB,
        networks.torchvision_deeplab_v3,
        _VOC,
    ),
    "semseg_resnet": Origin(
        semseg.is_resnet, torchvision_resnet.resnet, _IMAGENET_RGB, networks.resnet
    ),
    "semseg_pspnet": Origin(
        semseg.is_pspnet, semseg.pspnet, _IMAGENET_RGB, networks.semseg_pspnet, _THREE
    ),
    "deeplab_pytorch": Origin(
        deeplab_pytorch.is_deeplab,
        deeplab_pytorch.deeplab,
        _caffe(122.675, 116.669, 104.008),
        networks.deeplab_pytorch,
        _VOC,
    ),
    "drsleep_refinenet": Origin(
        drsleep_refinenet.is_refinenet,
        drsleep_refinenet.refinenet,
        _IMAGENET_RGB,
        networks.drsleep_refinenet,
        _VOC,
    ),
    "keras_mobilenet_v2": Origin(
        keras_mobilenet.is_mobilenet_v2,
        keras_mobilenet.mobilenet_v2,
        _grey(127.5),
        networks.keras_mobilenet,
    ),
    "tflite_deeplab_v3": Origin(
        tflite.is_deeplab_v3, tflite.deeplab_v3, _grey(128.0), networks.tflite_deeplab_v3, _VOC
    ),
}


def origin_of(arrays: Arrays, where: str) -> str:
    """The origin of a file, a key of ORIGINS.

    Args:
        arrays: name in the file -> array.
        where: the file, as errors name it.

    Raises:
        InputError: if no origin recognises the file.
    """
    for name, origin in ORIGINS.items():
        if origin.recognise(arrays):
            return name
    raise InputError(
        f"{where}: its tensors ({_listed(list(arrays))}) are of no known origin; known: "
        f"{', '.join(ORIGINS)}."
    )


@dataclasses.dataclass(frozen=True)
class Match:
    """The arrays of a file, assigned to the paths of a network.

    Attributes:
        arrays: path in the network -> float32 array.
        kept: paths in the network that keep their initial values because of `skip`.
        left: paths or names in the file that are not loaded because of `skip`.
        unused: name in the file -> the reason why the importer does not use it.
    """

    arrays: dict[str, np.ndarray]
    kept: list[str]
    left: list[str]
    unused: dict[str, str]

    def __str__(self) -> str:
        count = sum(array.size for array in self.arrays.values())
        lines = [f"{len(self.arrays)} tensors loaded, {count} numbers"]
        for text, names in (
            ("kept as drawn (init.skip)", self.kept),
            ("left in the file (init.skip)", self.left),
            ("not used", [f"{name} ({why})" for name, why in self.unused.items()]),
        ):
            if names:
                lines.append(f"{len(names)} {text}: {_listed(names)}")
        return "; ".join(lines)


def match(
    arrays: Arrays,
    shapes: Shapes,
    skip: Sequence[str],
    *,
    where: str,
    unused: Mapping[str, str] | None = None,
) -> Match:
    """Assigns an array of a file to every tensor of a network.

    Args:
        arrays: segjax's path -> array; a tensor that the importer does not know has the name that
            it has in the file.
        shapes: path in the network -> shape.
        skip: patterns of paths, of the file or the network, that need not match; `*` matches "/"
            too.
        where: the file, as errors name it.
        unused: name in the file -> reason, from the importer's `convert`.

    Raises:
        InputError: listing all tensors that are missing, extra, misshapen or not finite in float32;
            or naming a pattern of `skip` that matches nothing.
    """
    for pattern in skip:
        if not fnmatch.filter([*arrays, *shapes], pattern):
            some = _listed(list(shapes)[:1] + list(shapes)[-1:])
            raise InputError(f"config.init.skip: {pattern!r} fits no tensor; such are {some}.")

    def skipped(path: str) -> bool:
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in skip)

    with np.errstate(over="ignore"):  # numbers too large for float32 become infinite: "not finite"
        pairs = {
            path: np.asarray(arrays[path], np.float32)
            for path in shapes
            if path in arrays and not skipped(path)
        }
    problems = {
        "missing": [path for path in shapes if path not in arrays and not skipped(path)],
        "extra": [path for path in arrays if path not in shapes and not skipped(path)],
        "misshapen": [
            f"{path} {list(array.shape)} for {list(shapes[path])}"
            for path, array in pairs.items()
            if array.shape != tuple(shapes[path])
        ],
        "not finite": [path for path, array in pairs.items() if not np.isfinite(array).all()],
    }
    lists = [f"{len(names)} {kind}: {_listed(names)}" for kind, names in problems.items() if names]
    if lists:
        raise InputError(
            f"{where} does not fit the network: {'; '.join(lists)}. config.init.skip names tensors "
            f"that need not match, here {_patterns(problems, skip)} for another head or other "
            "classes."
        )
    return Match(
        arrays=pairs,
        kept=[path for path in shapes if skipped(path)],
        left=[path for path in arrays if skipped(path)],
        unused=dict(unused or {}),
    )


def _patterns(problems: Mapping[str, Sequence[str]], skip: Sequence[str]) -> tuple[str, ...]:
    """Patterns for `init.skip`: those given, and those of the parts that do not match.

    A backbone that does not match is another one: the example is the head's then.
    """
    paths = [name.split(" ")[0] for names in problems.values() for name in names]
    parts = dict.fromkeys(path.split("/")[0] for path in paths if path.count("/") > 1)
    heads = [f"{part}/*" for part in parts if part in ("head", "aux", "crf")]
    return tuple(dict.fromkeys((*skip, *(heads or ["head/*"]))))


def _listed(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
