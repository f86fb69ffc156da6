"""RefineNet, GCN and SegNet without a faithful release in PyTorch, written for this comparison.

They follow the papers, the specs and the prototxts of SegNet-Tutorial, and are made of torch's
layers, as in `oracle_nets.py`.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from experiments.parity.oracle_nets import Own, Weights, conv, resnet, zoom

_RESNET50 = [[1] * 3, [1] * 4, [1] * 6, [1] * 3]
# Gain of convolutions before an addition: with small ones blocks do not double the numbers.
_ADDED, _LINKED = 0.25, 0.5


def stages_of_resnet(w: Weights, x: torch.Tensor, d: int) -> list[torch.Tensor]:
    """Stages 1 to 5 of ResNet-50 at output stride 32."""
    return resnet(w, x, 64 // d, (1, 2, 2, 2), _RESNET50)


# RefineNet: spec/refinenet.md, section 1.


def unit(w: Weights, x: torch.Tensor, name: str) -> torch.Tensor:
    """x + conv(relu(conv(relu(x))))."""
    y = conv(w, F.relu(x), f"{name}/first", x.shape[1], 3, bias=True)
    return x + conv(w, F.relu(y), f"{name}/second", x.shape[1], 3, gain=_ADDED)


def refinenet(
    w: Weights,
    x: torch.Tensor,
    *,
    d: int,
    classes: int,
    groups: Sequence[Sequence[int]],
    blocks: int,
    pool_first: bool,
) -> list[torch.Tensor]:
    """Blocks that fuse `groups` of stages, from the coarsest on, the finest of each first."""
    size, width = x.shape[2:], 256 // d
    stages = [None, *stages_of_resnet(w, x, d)]
    x, before = None, None
    for group in groups:
        finest = group[0]
        target, fused = stages[finest].shape[2:], len(group) + (x is not None) > 1
        total = zoom(x, 2 ** (before - finest), target) if x is not None else 0
        for stage in group:
            name, wide = f"head/stage{stage}", width if stage < 5 else 2 * width
            y = conv(w, stages[stage], f"{name}/reduce", wide, 3)
            for i in range(2):
                y = unit(w, y, f"{name}/before/{i}")
            if fused:
                y = conv(w, y, f"{name}/join", width, 3)
            total = total + zoom(y, 2 ** (stage - finest), target)
        x, before, name = F.relu(total), finest, f"head/stage{finest}_refined"
        link = x
        for i in range(blocks):
            layer = {"name": f"{name}/chain/convs/{i}", "outputs": x.shape[1], "size": 3}
            if pool_first:
                link = conv(w, F.max_pool2d(link, 5, 1, 2), **layer, gain=_LINKED)
            else:
                link = F.max_pool2d(conv(w, link, **layer, gain=_LINKED), 5, 1, 2)
            x = x + link
        for i in range(3):
            x = unit(w, x, f"{name}/after/{i}")
        if finest > 2:
            x = conv(w, x, f"{name}/onward", width, 3)
    return [zoom(conv(w, x, "head/score", classes, 3, bias=True), 4, size)]


# The Global Convolutional Network: spec/gcn.md, section 1, without biases.


def line(w: Weights, x: torch.Tensor, name: str, outputs: int, taps: int, axis: int):
    """A convolution of k x 1 (axis 2) or 1 x k (axis 3), padded with zeros."""
    shape, options = (taps, 1, x.shape[1], outputs), {"fan_in": taps * x.shape[1]}
    kernel = w.tensor(w.array(f"{name}/kernel", shape, "kernel", **options)).permute(3, 2, 0, 1)
    kernel = kernel if axis == 2 else kernel.transpose(2, 3)
    return F.conv2d(x, kernel, padding="same")


def edge(w: Weights, x: torch.Tensor, name: str) -> torch.Tensor:
    """Boundary refinement."""
    y = F.relu(conv(w, x, f"{name}/first", x.shape[1], 3))
    return x + conv(w, y, f"{name}/second", x.shape[1], 3, gain=_ADDED)


def gcn(w: Weights, x: torch.Tensor, *, d: int, classes: int, taps: int) -> list[torch.Tensor]:
    """The whole network: both sides of the last grid are even; then it is cropped."""
    size = x.shape[2:]
    stages = [None, *stages_of_resnet(w, x, d)]
    x = None
    for stage in (5, 4, 3, 2):
        own, name = stages[stage], f"head/stage{stage}"
        left = line(w, own, f"{name}/left/0", classes, taps, 2)
        left = line(w, left, f"{name}/left/1", classes, taps, 3)
        right = line(w, own, f"{name}/right/0", classes, taps, 3)
        right = line(w, right, f"{name}/right/1", classes, taps, 2)
        own = edge(w, left + right, f"{name}_edge")
        if x is None:
            x = own
        else:
            x = edge(w, own + zoom(x, 2, own.shape[2:]), f"{name}_sum")
    half = stages[1].shape[2:]
    x = edge(w, zoom(x, 2, half), "head/half")
    x = edge(w, zoom(x, 2, [2 * n for n in half]), "head/whole")
    return [x[:, :, : size[0], : size[1]]]


# SegNet: spec/segnet.md; Models/*.prototxt and Example_Models/*.prototxt of SegNet-Tutorial.


def block(w: Weights, x, name: str, outputs: int, size: int, blobs: int, activate=True):
    """Convolution, norm of two merged blobs or of four, ReLU."""
    gain = 2**-6 if x.shape[1] == 3 else 1
    x = conv(w, x, name, outputs, size, bias=True, gain=gain)
    kinds = ("scale", "bias", "mean", "var")[:blobs]
    scale, shift, *statistics = (
        w.tensor(w.array(f"{name}_bn/{i}", (1, outputs, 1, 1), kind))
        for i, kind in enumerate(kinds)
    )
    if statistics:
        mean, var = statistics
        x = (x - mean) / torch.sqrt(var + 1e-9)
    x = x * scale + shift
    return F.relu(x) if activate else x


def pool(x: torch.Tensor, places: list) -> torch.Tensor:
    """2 x 2, rounding up; keeps the places and the size."""
    pooled, chosen = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
    places.append((chosen, x.shape[2:]))
    return pooled


def unpool(x: torch.Tensor, places: list) -> torch.Tensor:
    chosen, size = places.pop()
    return F.max_unpool2d(x, chosen, 2, 2, output_size=size)


def segnet(
    w: Weights, x: torch.Tensor, *, d: int, classes: int, blobs: int, camvid=False, seen=None
) -> list[torch.Tensor]:
    """`camvid`: stage 1 ends in a block, and a layer of that name scores.

    `seen`, a list, is given the encoder's places.
    """
    places, widths = [], [64 * 2 ** min(i, 3) // d for i in range(5)]
    depths = (2, 2, 3, 3, 3)
    for i in range(5):
        for j in range(depths[i]):
            x = block(w, x, f"conv{i + 1}_{j + 1}", widths[i], 3, blobs)
        x = pool(x, places)
    if seen is not None:
        seen += places
    for i in range(4, -1, -1):
        x = unpool(x, places)
        for j in range(depths[i] - 1, -1, -1):
            name = f"conv{i + 1}_{j + 1}_D"
            if i == j == 0 and not camvid:
                return [conv(w, x, name, classes, 3, bias=True)]
            x = block(w, x, name, widths[i if j else max(i - 1, 0)], 3, blobs)
    return [conv(w, x, "camvid", classes, 3, bias=True)]


def segnet_basic(w: Weights, x: torch.Tensor, *, d: int, classes: int, seen=None):
    """Four 7 x 7 on either side, a local norm first, no ReLU in the decoder."""
    places, width = [], 64 // d
    x = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)
    for i in range(1, 5):
        x = pool(block(w, x, f"conv{i}", width, 7, 2), places)
    if seen is not None:
        seen += places
    for i in range(4, 0, -1):
        x = block(w, unpool(x, places), f"conv_decode{i}", width, 7, 2, activate=False)
    return [conv(w, x, "conv_classifier", classes, 1, bias=True)]


FOUR, TWO, ONE = ((5,), (4,), (3,), (2,)), ((4, 5), (2, 3)), ((2, 3, 4, 5),)
NETS = {
    "refinenet50_paper": (refinenet, {"groups": FOUR, "blocks": 2, "pool_first": True}),
    "refinenet50_improved": (refinenet, {"groups": FOUR, "blocks": 4, "pool_first": False}),
    "refinenet50_two": (refinenet, {"groups": TWO, "blocks": 2, "pool_first": True}),
    "refinenet50_one": (refinenet, {"groups": ONE, "blocks": 2, "pool_first": True}),
    "gcn_resnet50_paper": (gcn, {"taps": 15}),
    "segnet": (segnet, {"blobs": 4}),
    "segnet_merged": (segnet, {"blobs": 2}),
    "bayesian_segnet_camvid": (segnet, {"blobs": 2, "camvid": True}),
    "segnet_basic": (segnet_basic, {}),
}


def make(name: str, divisor: int, classes: int) -> Own:
    """One of NETS, its widths divided by `divisor`."""
    net, options = NETS[name]
    return Own(lambda w, x, **k: net(w, x, d=divisor, classes=classes, **options, **k), "torch")
