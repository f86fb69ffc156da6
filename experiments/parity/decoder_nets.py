"""The networks that `decoders.py` compares: their options, origins of weights, published costs.

Nothing here needs torch: the tests build the narrow ones.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from experiments.parity.nets import BATCH, FROZEN, Cost, Net, of_backbone, resnet
from segjax.models import lines

_SEGNET = {"name": "batch", "epsilon": 1e-9}  # the release's
_VGG = (2, 2, 3, 3, 3)


def _refinenet(depth: int, **head: Any) -> Callable[[int], dict[str, Any]]:
    return lambda d: {
        "backbone": resnet(depth, d, FROZEN),
        "head": {"name": "refinenet", "width": 256 // d, **head},
    }


def _gcn(depth: int, **head: Any) -> Callable[[int], dict[str, Any]]:
    return lambda d: {"backbone": resnet(depth, d, BATCH), "head": {"name": "gcn", **head}}


def _segnet(depths: tuple[int, ...] = _VGG) -> Callable[[int], dict[str, Any]]:
    def model(d):
        shared, widths = {"kernel": 3, "norm": _SEGNET}, (64, 128, 256, 512, 512)
        encoder = {"name": "segnet_encoder", "widths": tuple(n // d for n in widths)}
        return {
            "backbone": encoder | shared | {"depths": _VGG},
            "head": {"name": "segnet"} | shared | {"depths": depths},
        }

    return model


def _basic(d: int) -> dict[str, Any]:
    shared = {"kernel": 7, "norm": _SEGNET, "depths": (1,) * 4}
    encoder = {"name": "segnet_encoder", "widths": (64 // d,) * 4, "local_norm": True}
    decoder = {"name": "segnet", "activation": False, "classifier": 1}
    return {"backbone": encoder | shared, "head": decoder | shared}


# Poolings round up at every level of the first, at the last three of the second.
_CEIL = ((65, 97), (90, 120), (113, 89))
# Inside a patch neighbours are equal but for rounding, and their pooling has no right answer.
_CAFFE = {"sizes": _CEIL, "patch": (1, 1), "classes": 11}
_CAMVID = (360, 480)

NETS = {
    "refinenet50": Net(
        "drsleep_refinenet", "refinenet", _refinenet(50, align="corners"),
        parameters=99_060_309, cost=Cost(512, 21, 243.5),
    ),
    "refinenet101": Net(
        "drsleep_refinenet", "refinenet", _refinenet(101, align="corners"), fixture=False,
        parameters=118_052_437, cost=Cost(512, 21, 262.9),
    ),
    "refinenet50_paper": Net(
        "torchvision_fcn", "own", _refinenet(50, blocks=2), fixture=False,
        parameters=90_802_773, cost=Cost(512, 21, 216.9),
    ),
    "refinenet50_improved": Net(
        "torchvision_fcn", "own", _refinenet(50, chain="conv_first"),
        parameters=99_060_309, cost=Cost(512, 21, 243.5),
    ),
    "refinenet50_two": Net("torchvision_fcn", "own", _refinenet(50, cascades=2, blocks=2)),
    "refinenet50_one": Net(
        "torchvision_fcn", "own", _refinenet(50, cascades=1, blocks=2), fixture=False,
    ),
    "gcn_resnet50": Net(
        "zijundeng_gcn", "gcn", _gcn(50, taps=7, use_bias=True, align="corners"),
        parameters=24_733_844,
    ),
    "gcn_resnet152": Net(
        "zijundeng_gcn", "gcn", _gcn(152, taps=7, use_bias=True, align="corners"), fixture=False,
        parameters=59_369_620,
    ),
    "gcn_resnet50_paper": Net(
        "torchvision_fcn", "own", _gcn(50), parameters=26_051_594, cost=Cost(512, 21, 29.5),
    ),
    "segnet": Net(
        "caffe_segnet", "own", _segnet(), **_CAFFE,
        parameters=29_449_355, cost=Cost(_CAMVID, 11, 106.7),
    ),
    "segnet_merged": Net(
        "caffe_segnet", "own", _segnet(), **_CAFFE, fixture=False,
        parameters=29_449_355, cost=Cost(_CAMVID, 11, 106.7),
    ),
    "bayesian_segnet_camvid": Net("caffe_segnet", "own", _segnet((3, 2, 3, 3, 3)), **_CAFFE),
    "segnet_basic": Net(
        "caffe_segnet", "own", _basic, **_CAFFE,
        parameters=1_416_587, cost=Cost(_CAMVID, 11, 59.2),
    ),
}  # fmt: skip


def _gcn_change(depth: int, **head: Any) -> dict[str, Any]:
    return of_backbone(depth=depth) | ({"head": head} if head else {})


_PORT, _BIASED = {"taps": 7, "use_bias": True}, {"taps": 15, "use_bias": True}
_WIDE = {"taps": 25, "use_bias": True}  # for Cityscapes
_BARE = of_backbone(use_bias=False) | {"head": {"use_bias": False}}
_SHORT = {"head": {"blocks": 2}}

# Further counts of the specs: (name, as which network, parameters at the cost's classes, cost).
COUNTS = (
    *(
        (f"RefineNet-{depth}", "refinenet50", count, Cost(512, classes, gmac,
                                                         of_backbone(depth=depth)))
        for depth, classes, count, gmac in (
            (50, 19, 99_055_699, None), (50, 40, 99_104_104, None), (50, 150, 99_357_654, None),
            (101, 19, 118_047_827, None), (101, 40, 118_096_232, None),
            (101, 150, 118_349_782, None), (152, 21, 133_696_085, 282.3),
            (152, 19, 133_691_475, None), (152, 40, 133_739_880, None),
            (152, 150, 133_993_430, None),
        )
    ),
    ("RefineNet-101, CRP 2", "refinenet101", 109_794_901, Cost(512, 21, 236.3, _SHORT)),
    *(
        (f"GCN on ResNet-{depth}, {label}", "gcn_resnet50_paper", count,
         Cost(size, classes, gmac, _gcn_change(depth, **head)))
        for depth, label, head, classes, count, size, gmac in (
            (50, "k 15, biases", _BIASED, 21, 26_052_308, 512, 29.5),
            (101, "k 15, biases", _BIASED, 21, 45_044_436, 512, 48.9),
            (152, "k 15, biases", _BIASED, 21, 60_688_084, 512, 68.3),
            (101, "k 15", {}, 21, 45_043_722, 512, 48.9),
            (152, "k 15", {}, 21, 60_687_370, 512, 68.3),
            (101, "k 7, biases", _PORT, 21, 43_725_972, 512, None),
            (50, "k 25, biases", _WIDE, 19, 27_287_360, 800, 77.2),
            (101, "k 25, biases", _WIDE, 19, 46_279_488, 800, 124.6),
            (152, "k 25, biases", _WIDE, 19, 61_923_136, 800, 171.9),
        )
    ),
    *(
        ("SegNet", "segnet", count, Cost(size, classes, gmac))
        for classes, count, size, gmac in (
            (12, 29_449_932, _CAMVID, None), (21, 29_455_125, 224, 31.2),
            (37, 29_464_357, _CAMVID, 109.3), (38, 29_464_934, _CAMVID, None),
        )
    ),
    ("SegNet, no biases beside norms", "segnet", 29_441_419, Cost(_CAMVID, 11, None, _BARE)),
    ("SegNet-Basic", "segnet_basic", 1_416_652, Cost(_CAMVID, 12, None)),
    ("SegNet-Basic, no biases beside norms", "segnet_basic", 1_416_075,
     Cost(_CAMVID, 11, None, _BARE)),
)  # fmt: skip
# Table 2 of GCN's paper: k -> parameters of the block on res-5 for 21 classes, in thousands.
BLOCKS = {3: 260, 5: 434, 7: 608, 9: 782}


def block_parameters(taps: int) -> int:
    """The parameters of our block."""
    block = nnx.eval_shape(
        lambda: lines.GlobalConv(2048, 21, taps=taps, use_bias=False, rngs=nnx.Rngs(0))
    )
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(block, nnx.Param)))
