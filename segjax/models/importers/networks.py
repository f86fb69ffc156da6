"""The networks that files of weights belong to: options that tensors do not show.

Tensors tell a network's depth and widths, but not its strides and dilations, the places to which it
resizes scores, or the order in which it joins branches: a file loads into any of them. Here is, for
every origin, the one network that its files were made for, as `config.model` describes it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.models.backbones import resnet as resnets
from segjax.models.backbones.vgg import STAGES
from segjax.models.importers import caffe

Arrays = Mapping[str, np.ndarray]
Options = dict[str, Any]

_BATCH, _FROZEN, _NONE = ({"name": name} for name in ("batch", "frozen", "none"))


@dataclasses.dataclass(frozen=True)
class Network:
    """The network of a file of weights.

    Attributes:
        model: options of `models.build` but for classes and dtype. An option that the file does
            not show, because it lacks the tensor, is left out.
        free: names such as "backbone.output_stride" of options that a network with these weights
            chooses for itself.
        classes: K of the file, or None if it has no layer of scores.
    """

    model: Mapping[str, Any]
    free: frozenset[str] = frozenset()
    classes: int | None = None


# A classifier is trained on images of one size, all of whose features lie inside; the papers that
# start from one dilate it, leave its last layer and pad its images as they like.
_OF_CLASSIFIERS = frozenset(
    f"backbone.{option}" for option in ("output_stride", "multi_grid", "dilation_rule", "top")
)
# 224 pixels are even at all five poolings of a VGG: no weight of a classifier knows their rounding.
_OF_VGGS = frozenset({"backbone.border", "backbone.pool_rounding"})


def vgg(_file: Arrays, ours: Arrays, rounding: str) -> Network:
    """A VGG-16 for ImageNet, fully convolutional; its poolings round as its library's do."""
    return _network(
        ours,
        _vgg(ours) | {"border": "same", "pool_rounding": rounding},
        {"name": "classifier"},
        free=_OF_VGGS,
    )


def torchvision_vgg(file: Arrays, ours: Arrays) -> Network:
    """torchvision's vgg16 and vgg16_bn."""
    return vgg(file, ours, "floor")


def keras_vgg(file: Arrays, ours: Arrays) -> Network:
    """Keras' VGG16."""
    return vgg(file, ours, "floor")


def caffe_vgg(file: Arrays, ours: Arrays) -> Network:
    """VGG-16 of the authors' release."""
    return vgg(file, ours, "ceil")


def caffe_fcn(file: Arrays, ours: Arrays) -> Network:
    """FCN-32s, 16s and 8s of the release; 8s at once where the file has the layers that scale."""
    layers = {caffe.parse(name)[0] for name in file}
    depth = "8s" if "score_pool3" in layers else "16s" if "score_pool4" in layers else "32s"
    head: Options = {"name": f"fcn{depth}"}
    if depth != "32s":
        head["upsampling"] = "learned" if caffe.learns_upsampling(file) else "fixed"
    free: frozenset[str] = frozenset()
    if depth == "8s":
        head["at_once"] = bool(layers & {"scale_pool4", "scale_pool3"})
        if not head["at_once"]:  # pytorch-fcn scales in code
            free = frozenset({"head.at_once"})
    backbone = _vgg(ours) | {"border": "caffe", "pool_rounding": "ceil"}
    return _network(ours, backbone, head, free=free)


def caffe_segnet(_file: Arrays, ours: Arrays) -> Network:
    """SegNet, SegNet-Basic, and the Bayesian ones, whose dropout the file does not show."""
    stages = [stage for stage in STAGES if f"backbone/{stage}/0/conv/kernel" in ours]
    basic = len(stages) < len(STAGES)
    kernels = [ours[f"backbone/{stage}/0/conv/kernel"] for stage in stages]
    size = kernels[0].shape[0] if kernels else 3
    score = ours.get("head/score/kernel")
    depths = {
        part: [_count(ours, f"{part}/{stage}") for stage in stages] for part in ("backbone", "head")
    }
    classifier = size if score is None else score.shape[0]
    if depths["head"] and classifier == size:
        depths["head"][0] += 1  # the scores are the last convolution of stage 1
    shared = {
        "kernel": size,
        "norm": _norm(ours, "backbone", {"name": "batch", "epsilon": 1e-9}),
        "use_bias": "backbone/stage1/0/conv/bias" in ours,
    }
    encoder = {
        "name": "segnet_encoder",
        "depths": tuple(depths["backbone"]),
        "widths": tuple(kernel.shape[-1] for kernel in kernels),
        "local_norm": basic,
    }
    decoder = {
        "name": "segnet",
        "depths": tuple(depths["head"]),
        "classifier": classifier,
        "activation": not basic,
    }
    return _network(ours, encoder | shared, decoder | shared)


def googlenet(_file: Arrays, ours: Arrays) -> Network:
    """BVLC's GoogLeNet."""
    backbone = {"name": "googlenet", "dropout": 0.4}
    return _network(
        ours,
        backbone | _width(ours, "width", "backbone/conv1/conv/kernel"),
        {"name": "classifier"},
    )


def resnet(_file: Arrays, ours: Arrays) -> Network:
    """torchvision's ResNets, and those of semseg, whose stem is deep."""
    return _network(ours, _resnet(ours), {"name": "classifier"}, free=_OF_CLASSIFIERS)


def torchvision_fcn(_file: Arrays, ours: Arrays) -> Network:
    """fcn_resnet50 and fcn_resnet101."""
    return _torchvision(ours, {"name": "conv"} | _width(ours, "width", "head/conv/conv/kernel"))


def torchvision_deeplab_v3(_file: Arrays, ours: Arrays) -> Network:
    """deeplabv3_resnet50 and deeplabv3_resnet101."""
    head = {
        "name": "deeplab_v3",
        "rates": (12, 24, 36),
        "order": "pool_last",
        "dropout": 0.5,
        "extra_conv": True,
    }
    return _torchvision(ours, head | _width(ours, "width", "head/aspp/point/conv/kernel"))


def semseg_pspnet(_file: Arrays, ours: Arrays) -> Network:
    """PSPNet-50 and 101 of semseg."""
    head = {"name": "pspnet", "norm": _BATCH, "bins": (1, 2, 3, 6), "drop_maps": True}
    return _network(
        ours,
        _resnet(ours) | {"output_stride": 8},
        head | _width(ours, "width", "head/conv/conv/kernel"),
        _side(ours, drop_maps=True),
    )


def deeplab_pytorch(_file: Arrays, ours: Arrays) -> Network:
    """DeepLab v2 of deeplab-pytorch at three scales, or a ResNet of it.

    Its norms are frozen in training, too.
    """
    backbone = _resnet(ours, _FROZEN) | {"stride_in": "1x1", "pool_rounding": "ceil"}
    branches = _count(ours, "head/branches")
    if not branches:
        return _network(ours, backbone, {"name": "classifier"}, free=_OF_CLASSIFIERS)
    rates = {4: (6, 12, 18, 24), 1: (12,)}.get(branches)
    head = {"name": "deeplab_v2", "align": "half_pixel"} | ({"rates": rates} if rates else {})
    scales = {"scales": (1.0, 0.75, 0.5), "align": "half_pixel"}
    return _network(ours, backbone | {"output_stride": 8}, head, multi_scale=scales)


def drsleep_refinenet(_file: Arrays, ours: Arrays) -> Network:
    """RefineNet of DrSleep's port, whose norms have frozen statistics."""
    head = {"name": "refinenet", "cascades": 4, "blocks": 4, "chain": "pool_first"}
    return _network(
        ours,
        _resnet(ours, _FROZEN | {"trains": True}),
        head | {"align": "corners"} | _width(ours, "width", "head/score/kernel", axis=2),
    )


def keras_mobilenet(_file: Arrays, ours: Arrays) -> Network:
    """Keras' MobileNetV2."""
    backbone = _mobilenet(ours, {"name": "batch", "epsilon": 1e-3})
    top = _width(ours, "top", "backbone/top/conv/kernel")
    return _network(ours, backbone | top, {"name": "classifier"}, free=_OF_CLASSIFIERS)


def tflite_deeplab_v3(_file: Arrays, ours: Arrays) -> Network:
    """DeepLab v3 on MobileNetV2 of TensorFlow's research code, its norms folded."""
    head = {
        "name": "deeplab_v3",
        "rates": (),
        "norm": _NONE,
        "order": "pool_first",
        "align": "corners",
    }
    return _network(
        ours,
        _mobilenet(ours, _NONE) | {"output_stride": 16},
        head | _width(ours, "width", "head/aspp/point/conv/kernel"),
    )


def _network(
    ours: Arrays,
    backbone: Options,
    head: Options,
    aux: Options | None = None,
    multi_scale: Options | None = None,
    free: frozenset[str] = frozenset(),
) -> Network:
    model: Options = {"backbone": backbone, "head": head, "aux": aux}
    if multi_scale:
        model["multi_scale"] = multi_scale
    return Network(model, free, classes_of(ours))


def classes_of(arrays: Arrays) -> int | None:
    """K of arrays under segjax's paths: the channels of the layer of scores; None without one."""
    for layer in ("score", "classifier", "score_top", "branches/0", "scores/0"):
        kernel = arrays.get(f"head/{layer}/kernel")
        if kernel is not None and kernel.ndim:
            return int(kernel.shape[-1])
    return None


def _vgg(ours: Arrays) -> Options:
    normed = any(path.startswith("backbone/stage1/0/norm/") for path in ours)
    return (
        {"name": "vgg16", "batch_norm": normed, "dropout": 0.5}
        | ({"fc_batch_norm": False} if normed else {})
        | _width(ours, "width", "backbone/stage1/0/conv/kernel")
        | _width(ours, "fc_width", "backbone/fc6/kernel")
    )


def _resnet(ours: Arrays, norm: Mapping[str, Any] = _BATCH) -> Options:
    counts = tuple(_count(ours, f"backbone/stage{number}") for number in range(2, 6))
    deepest = max(_count(ours, f"backbone/stage2/{i}/blocks") for i in range(max(counts[0], 1)))
    depth = next(
        (
            depth
            for depth, blocks in resnets.DEPTHS.items()
            if blocks == counts and (depth >= resnets.BOTTLENECKS) == (deepest > 2)
        ),
        None,
    )
    return (
        {"name": "resnet", "stride_in": "3x3", "pool_rounding": "floor"}
        | ({"depth": depth} if depth else {})
        | {"stem": "deep" if "backbone/stem/1/conv/kernel" in ours else "7x7"}
        | {"norm": _norm(ours, "backbone", norm)}
        | _width(ours, "width", "backbone/stem/0/conv/kernel")
    )


def _mobilenet(ours: Arrays, norm: Mapping[str, Any]) -> Options:
    last = ours.get("backbone/blocks/16/project/conv/kernel")
    options = {"name": "mobilenet_v2", "norm": _norm(ours, "backbone", norm)}
    return options if last is None else options | {"width": last.shape[-1] / 320}


def _torchvision(ours: Arrays, head: Options) -> Network:
    shared = {"norm": _BATCH, "align": "half_pixel"}
    backbone = _resnet(ours) | {"output_stride": 8, "dilation_rule": "torchvision"}
    return _network(ours, backbone, head | shared, _side(ours, align="half_pixel"))


def _side(ours: Arrays, **options: Any) -> Options | None:
    """The auxiliary head on stage 4, if the file has it."""
    width = _width(ours, "width", "aux/conv/conv/kernel")
    return {"name": "conv", "stage": "stage4", "norm": _BATCH} | width | options if width else None


def _norm(ours: Arrays, part: str, norm: Mapping[str, Any]) -> Mapping[str, Any]:
    """The norm of a part; "none" in files that have it folded into the convolutions."""
    has = any(path.startswith(f"{part}/") and "/norm/" in path for path in ours)
    return dict(norm) if has else _NONE


def _width(ours: Arrays, option: str, path: str, axis: int = -1) -> Options:
    """An option that is the channels of a kernel, in or out, if the file has it."""
    kernel = ours.get(path)
    return {option: int(kernel.shape[axis])} if kernel is not None and kernel.ndim == 4 else {}


def _count(ours: Arrays, place: str) -> int:
    """The number of children 0, 1, ... of a path that have tensors."""
    numbers = {
        path[len(place) + 1 :].split("/")[0] for path in ours if path.startswith(f"{place}/")
    }
    return len({number for number in numbers if number.isdecimal()})
