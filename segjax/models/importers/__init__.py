"""Weights of others: from the tensors of a file to parameters under our own names, strictly.

An origin says how a family of files names and lays out its tensors, and what images its networks
were made for. `match` then holds the result against a network: every tensor finds its place, or
one error lists those that do not.
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
    semseg,
    tflite,
    torchvision,
    torchvision_resnet,
)

Arrays = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]

_LISTED = 6  # names of one kind in an error


@dataclasses.dataclass(frozen=True)
class Origin:
    """A family of weight files.

    Attributes:
        recognise: whether these tensors, by the names in their file, are of one.
        convert: (tensors, shapes by the network's paths) -> (arrays by our paths, reasons by the
            names of tensors that are rightly not used). Tensors it does not know keep their names.
        preprocess: `mean`, `std` (RGB, 0 to 255) and `bgr`, as `config.preprocess` has them; None
            where the file itself says it.
    """

    recognise: Callable[[Arrays], bool]
    convert: Callable[[Arrays, Shapes], tuple[dict[str, np.ndarray], dict[str, str]]]
    preprocess: Mapping[str, Any] | None


_IMAGENET_RGB = {
    "mean": (123.675, 116.28, 103.53),  # 255 x (0.485, 0.456, 0.406)
    "std": (58.395, 57.12, 57.375),  # 255 x (0.229, 0.224, 0.225)
    "bgr": False,
}


def _caffe(red: float, green: float, blue: float, *, bgr: bool = True) -> dict[str, Any]:
    return {"mean": (red, green, blue), "std": (1.0, 1.0, 1.0), "bgr": bgr}


def _grey(middle: float) -> dict[str, Any]:
    return {"mean": (middle,) * 3, "std": (middle,) * 3, "bgr": False}


def _own(arrays: Arrays, _shapes: Shapes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    return dict(arrays), {}


# The first that recognises a file is its origin; `init.origin` may name another.
ORIGINS: Mapping[str, Origin] = {
    "segjax": Origin(lambda arrays: any(n.startswith("backbone/") for n in arrays), _own, None),
    "torchvision_vgg16_bn": Origin(torchvision.has_batch_norm, torchvision.vgg16_bn, _IMAGENET_RGB),
    # IMAGENET1K_FEATURES: Caffe's weights for RGB of 0 to 1; its classifier is not a number.
    "torchvision_vgg16_features": Origin(
        torchvision.is_features, torchvision.vgg16, _caffe(123.0, 117.0, 104.0, bgr=False)
    ),
    "torchvision_vgg16": Origin(torchvision.is_vgg, torchvision.vgg16, _IMAGENET_RGB),
    "keras_vgg16": Origin(keras.is_vgg, keras.vgg16, _caffe(123.68, 116.779, 103.939)),
    "caffe_fcn": Origin(caffe.is_fcn, caffe.fcn, _caffe(122.67892, 116.66877, 104.00699)),
    "caffe_vgg16": Origin(caffe.is_vgg, caffe.fcn, _caffe(123.68, 116.779, 103.939)),
    "caffe_segnet": Origin(caffe_segnet.is_segnet, caffe_segnet.segnet, _caffe(0, 0, 0)),
    "caffejs_googlenet": Origin(caffejs.is_googlenet, caffejs.googlenet, _caffe(123, 117, 104)),
    "torchvision_resnet": Origin(
        torchvision_resnet.is_resnet, torchvision_resnet.resnet, _IMAGENET_RGB
    ),
    "torchvision_fcn": Origin(torchvision_resnet.is_fcn, torchvision_resnet.fcn, _IMAGENET_RGB),
    "torchvision_deeplab_v3": Origin(
        torchvision_resnet.is_deeplab_v3, torchvision_resnet.deeplab_v3, _IMAGENET_RGB
    ),
    "semseg_resnet": Origin(semseg.is_resnet, torchvision_resnet.resnet, _IMAGENET_RGB),
    "semseg_pspnet": Origin(semseg.is_pspnet, semseg.pspnet, _IMAGENET_RGB),
    "deeplab_pytorch": Origin(
        deeplab_pytorch.is_deeplab, deeplab_pytorch.deeplab, _caffe(122.675, 116.669, 104.008)
    ),
    "drsleep_refinenet": Origin(
        drsleep_refinenet.is_refinenet, drsleep_refinenet.refinenet, _IMAGENET_RGB
    ),
    "keras_mobilenet_v2": Origin(
        keras_mobilenet.is_mobilenet_v2, keras_mobilenet.mobilenet_v2, _grey(127.5)
    ),
    "tflite_deeplab_v3": Origin(tflite.is_deeplab_v3, tflite.deeplab_v3, _grey(128.0)),
}


def origin_of(arrays: Arrays, where: str) -> str:
    """The key of ORIGINS whose files hold tensors like these, by the names in the file.

    Raises:
        InputError: if none does.
    """
    for name, origin in ORIGINS.items():
        if origin.recognise(arrays):
            return name
    raise InputError(
        f"{where}: its tensors ({_some(list(arrays))}) are of no known origin; known: "
        f"{', '.join(ORIGINS)}."
    )


@dataclasses.dataclass(frozen=True)
class Match:
    """Which array goes where.

    Attributes:
        arrays: path in the network -> float32 array.
        kept: paths in the network that `skip` leaves as they are.
        left: paths or names in the file that `skip` leaves there.
        unused: names in the file -> why the origin does not use them.
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
                lines.append(f"{len(names)} {text}: {_some(names)}")
        return "; ".join(lines)


def match(
    found: Arrays,
    wanted: Mapping[str, tuple[int, ...]],
    skip: Sequence[str],
    *,
    where: str,
    unused: Mapping[str, str] | None = None,
) -> Match:
    """Gives every tensor of the network its array.

    Args:
        found: our path -> array; a tensor that the origin does not know has its own name.
        wanted: path -> shape, of the network.
        skip: patterns of paths, on either side, that need not match; `*` crosses "/".
        where: named in errors, the file.
        unused: of the origin's `convert`.

    Raises:
        InputError: listing tensors that are missing, extra, misshapen or not finite; or naming a
            pattern of `skip` that fits nothing.
    """
    for pattern in skip:
        if not fnmatch.filter([*found, *wanted], pattern):
            raise InputError(
                f"config.init.skip: {pattern!r} fits no tensor; they read like "
                f"{_some(list(wanted)[:1] + list(wanted)[-1:])}."
            )

    def skipped(path: str) -> bool:
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in skip)

    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told
        pairs = {
            path: np.asarray(found[path], np.float32)
            for path in wanted
            if path in found and not skipped(path)
        }
    problems = {
        "missing": [path for path in wanted if path not in found and not skipped(path)],
        "extra": [path for path in found if path not in wanted and not skipped(path)],
        "misshapen": [
            f"{path} {list(array.shape)} for {list(wanted[path])}"
            for path, array in pairs.items()
            if array.shape != tuple(wanted[path])
        ],
        "not finite": [path for path, array in pairs.items() if not np.isfinite(array).all()],
    }
    told = [f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names]
    if told:
        raise InputError(
            f"{where} does not fit the network: {'; '.join(told)}. What need not match is named "
            "by config.init.skip, such as ('head/*',) for another head or other classes."
        )
    return Match(
        arrays=pairs,
        kept=[path for path in wanted if skipped(path)],
        left=[path for path in found if skipped(path)],
        unused=dict(unused or {}),
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
