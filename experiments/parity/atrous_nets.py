"""The networks that `atrous.py` compares: their options, origins of weights, published costs.

Nothing here needs torch: the tests build the narrow ones.
"""

from collections.abc import Callable
from typing import Any

from experiments.parity.nets import BATCH, FROZEN, NONE, SIZES, Cost, Net, of_backbone, resnet

_KERAS = {"name": "batch", "epsilon": 1e-3}


def _classifier(depth: int) -> Callable[[int], dict[str, Any]]:
    return lambda d: {"backbone": resnet(depth, d), "head": {"name": "classifier"}}


def _torchvision(depth: int, head: str) -> Callable[[int], dict[str, Any]]:
    def model(d):
        shared = {"norm": BATCH, "align": "half_pixel"}
        side = {"name": "conv", "stage": "stage4", "width": 256 // d}
        heads = {
            "fcn": {"name": "conv", "width": 512 // d},
            "deeplab_v3": {
                "name": "deeplab_v3",
                "width": 256 // d,
                "rates": (12, 24, 36),
                "order": "pool_last",
                "dropout": 0.5,
                "extra_conv": True,
            },
        }
        trunk = resnet(depth, d, output_stride=8, dilation_rule="torchvision")
        return {"backbone": trunk, "head": heads[head] | shared, "aux": side | shared}

    return model


def _pspnet(depth: int) -> Callable[[int], dict[str, Any]]:
    def model(d):
        side = {"name": "conv", "stage": "stage4", "width": 256 // d, "drop_maps": True}
        return {
            "backbone": resnet(depth, d, stem="deep", output_stride=8),
            "head": {"name": "pspnet", "norm": BATCH, "width": 512 // d},
            "aux": side | {"norm": BATCH},
        }

    return model


def _deeplab_v2(depth: int) -> Callable[[int], dict[str, Any]]:
    def model(d):
        options = {"stride_in": "1x1", "output_stride": 8, "pool_rounding": "ceil"}
        return {
            "backbone": resnet(depth, d, FROZEN, **options),
            "head": {"name": "deeplab_v2", "align": "half_pixel"},
            "multi_scale": {"scales": (1.0, 0.75, 0.5), "align": "half_pixel"},
        }

    return model


def _vgg(rates: tuple[int, ...], average: bool, **head: Any) -> Callable[[int], dict[str, Any]]:
    def model(d):
        backbone = {"name": "vgg16_atrous", "rates": rates, "fc_kernel": 3, "fc_width": 1024 // d}
        return {
            "backbone": backbone | {"average": average, "width": 64 // d, "dropout": 0.5},
            "head": {"name": "deeplab_v1", **head},
        }

    return model


def _mobilenet(d: int) -> dict[str, Any]:
    backbone = {"name": "mobilenet_v2", "norm": _KERAS, "top": 1280 // d}
    return {
        "backbone": backbone | {"width": 1.0 if d == 1 else 0.25},
        "head": {"name": "classifier"},
    }


def _deeplab_mobilenet(d: int) -> dict[str, Any]:
    backbone = {"name": "mobilenet_v2", "norm": NONE, "output_stride": 16}
    head = {"name": "deeplab_v3", "rates": (), "norm": NONE, "order": "pool_first"}
    return {
        "backbone": backbone | {"width": 1.0 if d == 1 else 0.25},
        "head": head | {"width": 256 // d, "align": "corners"},
    }


def _paper(depth: int, head: str) -> Callable[[int], dict[str, Any]]:
    def model(d):
        backbone = resnet(depth, d, output_stride=16, multi_grid=(1, 2, 4))
        part = {"name": head, "norm": BATCH, "rates": (6, 12, 18), "width": 256 // d}
        if head == "deeplab_v3plus":
            part["fine_width"] = 48 // d
        return {"backbone": backbone, "head": part}

    return model


def _cascade(depth: int) -> Callable[[int], dict[str, Any]]:
    def model(d):
        options = {"output_stride": 16, "multi_grid": (1, 2, 1), "cascade": 3, "stride_in": "last"}
        return {"backbone": resnet(depth, d, **options), "head": {"name": "classifier"}}

    return model


_WITH_AUX = ("main", "aux")
_SCALES = ("fused", "scale 1", "scale 0.75", "scale 0.5")
_ON_EIGHT = tuple(size for size in SIZES if all(n % 8 == 1 for n in size))  # what semseg takes

_NO_AUX = {"aux": None}
_ONE_SCALE = {"multi_scale": None}

NETS = {
    "resnet18": Net(
        "torchvision_resnet", "torchvision", _classifier(18), classes=1000, pooled=True,
        parameters=11_689_512, cost=Cost(224, 1000, 1.814), said="torchvision",
    ),
    "resnet50": Net(
        "torchvision_resnet", "torchvision", _classifier(50), classes=1000, pooled=True,
        parameters=25_557_032, cost=Cost(224, 1000, 4.089),
    ),
    "resnet101": Net(
        "torchvision_resnet", "torchvision", _classifier(101), classes=1000, pooled=True,
        fixture=False,
        parameters=44_549_160, cost=Cost(224, 1000, 7.801),
    ),
    "fcn_resnet50": Net(
        "torchvision_fcn", "torchvision", _torchvision(50, "fcn"), _WITH_AUX,
        parameters=35_322_218, cost=Cost(520, 21, 152.717), said="torchvision",
    ),
    "deeplabv3_resnet50": Net(
        "torchvision_deeplab_v3", "torchvision", _torchvision(50, "deeplab_v3"), _WITH_AUX,
        parameters=42_004_074, cost=Cost(520, 21, 178.7),
    ),
    "deeplabv3_resnet101": Net(
        "torchvision_deeplab_v3", "torchvision", _torchvision(101, "deeplab_v3"), _WITH_AUX,
        fixture=False,
        parameters=60_996_202, cost=Cost(520, 21, 258.7),
    ),
    "pspnet50": Net(
        "semseg_pspnet", "semseg", _pspnet(50), _WITH_AUX, sizes=_ON_EIGHT,
        parameters=49_081_578, cost=Cost(473, 150, 161.9, _NO_AUX),
    ),
    "pspnet101": Net(
        "semseg_pspnet", "semseg", _pspnet(101), _WITH_AUX, sizes=_ON_EIGHT,
        fixture=False,
        parameters=68_073_706, cost=Cost(473, 150, 230.1, _NO_AUX),
    ),
    "deeplab_v2_resnet101": Net(
        "deeplab_pytorch", "deeplab-pytorch", _deeplab_v2(101), fixture=False, outputs=_SCALES,
        parameters=44_048_532, cost=Cost(513, 21, 188.9, _ONE_SCALE),
    ),
    "deeplab_v2_resnet50": Net(
        "deeplab_pytorch", "deeplab-pytorch", _deeplab_v2(50),
        outputs=_SCALES,
    ),
    "largefov": Net(
        "caffe_vgg16", "own", _vgg((12,), True),
        parameters=20_505_429, cost=Cost(321, 21, 50.9),
    ),
    "largefov_msc": Net("caffe_vgg16", "own", _vgg((12,), True, multi_scale=True)),
    "vgg16_aspp": Net(
        "caffe_vgg16", "own", _vgg((6, 12, 18, 24), False),
        parameters=37_877_652, cost=Cost(321, 21, 80.1),
    ),
    "mobilenet_v2": Net(
        "keras_mobilenet_v2", "own", _mobilenet, classes=1000, pooled=True,
        parameters=3_504_872, cost=Cost(224, 1000, 0.301), said="torchvision",
    ),
    "deeplab_v3_mobilenet_v2": Net(
        "tflite_deeplab_v3", "own", _deeplab_mobilenet,
        parameters=2_097_013, said="its weights",
    ),
    "deeplab_v3": Net(
        "torchvision_deeplab_v3", "own", _paper(50, "deeplab_v3"),
        parameters=39_048_533, cost=Cost(513, 21, 50.4),
    ),
    "deeplab_v3_cascade": Net("torchvision_deeplab_v3", "own", _cascade(50)),
    "deeplab_v3plus": Net("torchvision_deeplab_v3", "own", _paper(50, "deeplab_v3plus")),
}  # fmt: skip


_OS8 = {"backbone": {"output_stride": 8}, "head": {"rates": (12, 24, 36)}}
_OS8_101 = _OS8 | of_backbone(output_stride=8, depth=101)

# Further counts of the specs: (name, as which network, parameters at the cost's classes, cost).
COUNTS = (
    ("ResNet-152", "resnet50", 60_192_808, Cost(224, 1000, 11.514, of_backbone(depth=152))),
    ("ResNet-50, deep stem", "resnet50", 25_680_808,
     Cost(224, 1000, 5.444, of_backbone(stem="deep"))),
    ("ResNet-101, deep stem", "resnet101", 44_672_936,
     Cost(224, 1000, 9.157, of_backbone(stem="deep"))),
    ("ResNet-152, deep stem", "resnet50", 60_316_584,
     Cost(224, 1000, 12.869, of_backbone(stem="deep", depth=152))),
    ("PSPNet-50", "pspnet50", 46_782_550, Cost(473, 150, 161.9, _NO_AUX)),
    ("PSPNet-50", "pspnet50", 46_715_347, Cost(713, 19, 363.8, _NO_AUX)),
    ("PSPNet-101", "pspnet101", 65_774_678, Cost(473, 150, 230.1, _NO_AUX)),
    ("PSPNet-101", "pspnet101", 65_707_475, Cost(713, 19, 517.2, _NO_AUX)),
    ("PSPNet-152", "pspnet50", 81_418_326, Cost(473, 150, 286.2, _NO_AUX | of_backbone(depth=152))),
    ("PSPNet-152", "pspnet50", 81_351_123, Cost(713, 19, 643.5, _NO_AUX | of_backbone(depth=152))),
    ("PSPNet-50, 7x7 stem", "pspnet50", 46_658_774,
     Cost(473, 150, 155.8, _NO_AUX | of_backbone(stem="7x7"))),
    ("LargeFOV", "largefov", 20_505_429, Cost(513, 21, 128.6)),
    ("VGG-16 ASPP-L", "vgg16_aspp", 37_877_652, Cost(513, 21, 202.0)),
    ("DeepLab v2 ResNet-101", "deeplab_v2_resnet101", 44_048_532, Cost(321, 21, 75.1, _ONE_SCALE)),
    ("DeepLab v2 ResNet-101, one rate", "deeplab_v2_resnet101", 42_887_253,
     Cost(321, 21, None, _ONE_SCALE | {"head": {"rates": (12,)}})),
    ("DeepLab v3 ResNet-101, stride 16", "deeplab_v3", 58_040_661,
     Cost(513, 21, 71.1, of_backbone(depth=101))),
    ("DeepLab v3 ResNet-50, stride 8", "deeplab_v3", 39_048_533, Cost(513, 21, 166.2, _OS8)),
    ("DeepLab v3 ResNet-101, stride 8", "deeplab_v3", 58_040_661, Cost(513, 21, 246.2, _OS8_101)),
    ("DeepLab v3 ResNet-50, deep stem", "deeplab_v3", 39_172_309,
     Cost(513, 21, 57.5, of_backbone(stem="deep"))),
)  # fmt: skip
