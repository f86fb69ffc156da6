"""Networks without a release in PyTorch, written for this comparison from the papers and specs.

Functions of an image that ask for their weights by name, made of torch's layers, without segjax's
code. Weights have the names and the layout of the origin through which ours are loaded. Where there
is no origin, as for new heads, they have segjax's names, which begin with "head/" or "backbone/".
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from experiments.parity import drawn

_KINDS = {  # scale, bias, mean and variance of a norm
    "torch": ("weight", "bias", "running_mean", "running_var"),
    "keras": ("gamma", "beta", "moving_mean", "moving_variance"),
    "ours": ("scale", "bias", "mean", "var"),
}


class Own:
    """A network as a function of (weights, image).

    Args:
        net: (Weights, x [1, 3, H, W]) -> outputs [1, K, H, W] or [1, K], in our order.
        style: of the names, "torch", "keras" or "tflite".
    """

    def __init__(self, net: Callable, style: str):
        self.net, self.style = net, style
        self.weights, self.recipes = {}, {}

    def run(self, x: torch.Tensor, weights: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Logits of every output, [H, W, K] or [K]; draws weights that are not there."""
        with torch.no_grad():
            outputs = self.net(Weights(weights, self.recipes, self.style, x.dtype), x)
        return [y[0].permute(*range(1, y.ndim - 1), 0).numpy() for y in outputs]


class Weights:
    """Tensors by name, drawn when they are first asked for."""

    def __init__(self, arrays: dict[str, np.ndarray], recipes: dict, style: str, dtype):
        self.arrays, self.recipes, self.style, self.dtype = arrays, recipes, style, dtype

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.dtype)

    def array(self, name: str, shape: Sequence[int], kind: str, **options) -> np.ndarray:
        if name not in self.arrays:
            self.recipes[name] = drawn.Recipe(tuple(shape), kind, **options)
            self.arrays[name] = drawn.draw(name, self.recipes[name])
        assert self.arrays[name].shape == tuple(shape), name
        return self.arrays[name]

    def kernel(self, name: str, outputs: int, inputs: int, size: int, gain: float = 1):
        """[K, C, k, k], from the layout of the file."""
        style, options = self._style(name), {"fan_in": inputs * size * size, "gain": gain}
        if style == "torch":
            array = self.array(f"{name}.weight", (outputs, inputs, size, size), "kernel", **options)
        elif style == "tflite":
            shape = (outputs, size, size, inputs)
            array = self.array(f"{name}/weights", shape, "kernel", **options).transpose(0, 3, 1, 2)
        else:
            shape = (size, size, inputs, outputs)
            array = self.array(f"{name}/kernel", shape, "kernel", **options).transpose(3, 2, 0, 1)
        return self.tensor(array)

    def depthwise(self, name: str, features: int) -> torch.Tensor:
        """[C, 1, 3, 3]."""
        if self.style == "tflite":
            array = self.array(f"{name}/weights", (1, 3, 3, features), "kernel", fan_in=9)
            array = array.transpose(3, 0, 1, 2)
        else:
            shape = (3, 3, features, 1)
            array = self.array(f"{name}/depthwise_kernel", shape, "kernel", fan_in=9)
            array = array.transpose(2, 3, 0, 1)
        return self.tensor(array)

    def bias(self, name: str, features: int) -> torch.Tensor:
        dot = "." if self._style(name) == "torch" else "/"
        return self.tensor(self.array(f"{name}{dot}bias", (features,), "bias"))

    def norm(self, name: str, x: torch.Tensor, epsilon: float, gain: float = 1) -> torch.Tensor:
        """Batch norm by running statistics."""
        style = self._style(name)
        dot = "." if style == "torch" else "/"
        kinds = ("scale", "bias", "mean", "var")
        scale, bias, mean, var = (
            self.tensor(
                self.array(f"{name}{dot}{theirs}", (x.shape[1],), kind, gain=gain)
            )[:, None, None]
            for theirs, kind in zip(_KINDS[style], kinds, strict=True)
        )  # fmt: skip
        return (x - mean) / torch.sqrt(var + epsilon) * scale + bias

    def _style(self, name: str) -> str:
        return "ours" if name.startswith(("head/", "backbone/")) else self.style


def conv(w: Weights, x, name: str, outputs: int, size: int, *, bias=False, gain=1.0, **options):
    """A convolution, padded with zeros so that the size stays the same at stride 1."""
    kernel = w.kernel(name, outputs, x.shape[1], size, gain)
    padding = options.get("dilation", 1) * (size // 2)
    x = F.conv2d(x, kernel, padding=padding, **options)
    return x + w.bias(name, outputs)[:, None, None] if bias else x


def zoom(x: torch.Tensor, factor: int, size: Sequence[int]) -> torch.Tensor:
    """n -> (n - 1) factor + 1, corners on corners; then cropped, or its border repeated, to size.

    It is the releases' resizing at their sizes, and a sensible continuation at others: pixel j is
    pixel j / factor of the map.
    """
    grown = [(n - 1) * factor + 1 for n in x.shape[2:]]
    x = F.interpolate(x, size=grown, mode="bilinear", align_corners=True)
    x = x[:, :, : size[0], : size[1]]
    beyond = [max(0, n - m) for n, m in zip(size, x.shape[2:], strict=True)]
    return F.pad(x, (0, beyond[1], 0, beyond[0]), mode="replicate")


# DeepLab v1, and v2 on VGG-16: spec/deeplab.md, sections 1 and 2.


def vgg(
    w: Weights, x: torch.Tensor, *, d: int, classes: int, rates, average: bool, branches: bool
) -> list[torch.Tensor]:
    """LargeFOV (one rate, pool5a), with v1's branches or without; ASPP-L (four rates)."""
    image, sides = x, [x]
    for stage, depth in enumerate((2, 2, 3, 3, 3)):
        width = 64 * 2 ** min(stage, 3)
        for block in range(depth):
            name, gain = f"conv{stage + 1}_{block + 1}", 2**-6 if x is image else 1
            dilation = 2 if stage == 4 else 1
            x = F.relu(conv(w, x, name, width // d, 3, bias=True, gain=gain, dilation=dilation))
        x = F.max_pool2d(x, 3, 2 if stage < 3 else 1, 1, ceil_mode=True)
        sides.append(x)
    if average:
        x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=True)
    # fc6 of 7 x 7 x 512 to 4096 and fc7: every third row and column, every fourth filter.
    full, width = 4096 // d, 1024 // d
    step = full // width
    fc6, fc7 = w.kernel("fc6", full, x.shape[1], 7), w.kernel("fc7", full, full, 1)
    fc6, fc7 = fc6[::step, :, ::3, ::3], fc7[::step, ::step]
    bias6, bias7 = (w.bias(name, full)[::step] for name in ("fc6", "fc7"))
    total = 0
    for i, rate in enumerate(rates):
        y = F.relu(F.conv2d(x, fc6, bias6, padding=rate, dilation=rate))
        y = F.relu(F.conv2d(y, fc7, bias7))
        total = total + conv(w, y, f"head/scores/{i}", classes, 1, bias=True)
    size = image.shape[2:]
    total = zoom(total, 8, size)
    for i, factor in enumerate((1, 2, 4, 8, 8) if branches else ()):
        name = f"head/side_{f'stage{i}' if i else 'image'}"
        side, gain = sides[i], 1 if i else 2**-6
        y = F.relu(conv(w, side, f"{name}/conv1/conv", 128, 3, bias=True, gain=gain))
        y = F.relu(conv(w, y, f"{name}/conv2/conv", 128, 1, bias=True))
        total = total + zoom(conv(w, y, f"{name}/score", classes, 1, bias=True), factor, size)
    return [total]


# MobileNetV2 (Sandler et al., table 2, as Keras has it), and DeepLab v3 on it.

_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def same(x: torch.Tensor, size: int, stride: int, dilation: int) -> torch.Tensor:
    """TensorFlow's SAME: the odd zero comes last."""
    pads = []
    for n in (x.shape[3], x.shape[2]):
        total = max((-(-n // stride) - 1) * stride + (size - 1) * dilation + 1 - n, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def mobilenet_trunk(w: Weights, x: torch.Tensor, width: float, dilated: bool) -> torch.Tensor:
    """The trunk up to block 16.

    `dilated` to output stride 16: block 13 keeps the stride, 14 to 16 have rate 2.
    """
    keras = w.style == "keras"

    def finish(x, layer, norm, gain=1.0):
        return (
            w.norm(norm, x, 1e-3, gain) if keras else x + w.bias(layer, x.shape[1])[:, None, None]
        )

    first = "Conv1" if keras else "MobilenetV2/Conv"
    kernel = w.kernel(first, _eighths(32 * width), 3, 3)
    x = F.relu6(finish(F.conv2d(same(x, 3, 2, 1), kernel, stride=2), first, "bn_Conv1"))
    number = 0
    for expansion, channels, count, stride in _BLOCKS:
        for i in range(count):
            if keras:
                name = f"block_{number}_" if number else "expanded_conv_"
            else:
                name = f"MobilenetV2/expanded_conv{f'_{number}' if number else ''}/"
            rate, own = (2 if dilated and number > 13 else 1), stride if i == 0 else 1
            own = 1 if dilated and number == 13 else own
            before, outputs = x, _eighths(channels * width)
            if expansion > 1:
                x = conv(w, x, f"{name}expand", expansion * x.shape[1], 1)
                x = F.relu6(finish(x, f"{name}expand", f"{name}expand_BN"))
            inner, kernel = x.shape[1], w.depthwise(f"{name}depthwise", x.shape[1])
            x = F.conv2d(same(x, 3, own, rate), kernel, stride=own, dilation=rate, groups=inner)
            x = F.relu6(finish(x, f"{name}depthwise", f"{name}depthwise_BN"))
            x = conv(w, x, f"{name}project", outputs, 1)
            adds = own == 1 and before.shape[1] == outputs
            x = finish(x, f"{name}project", f"{name}project_BN", 0.25 if adds else 1)
            x = before + x if adds else x
            number += 1
    return x


def _eighths(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def mobilenet_v2(w: Weights, x: torch.Tensor, *, d: int, classes: int) -> list[torch.Tensor]:
    """MobileNetV2 as a classifier."""
    x = mobilenet_trunk(w, x, 1.0 if d == 1 else 0.25, dilated=False)
    x = F.relu6(w.norm("Conv_1_bn", conv(w, x, "Conv_1", 1280 // d, 1), 1e-3))
    weight = w.array("predictions/kernel", (1280 // d, classes), "kernel", fan_in=1280 // d)
    bias = w.bias("predictions", classes)
    return [x.mean((2, 3)) @ w.tensor(weight) + bias]


def deeplab_mobilenet(w: Weights, x: torch.Tensor, *, d: int, classes: int) -> list[torch.Tensor]:
    """Image pooling and a 1 x 1 on block 16, stretched corner on corner."""
    size, width = x.shape[2:], 256 // d
    x = mobilenet_trunk(w, x, 1.0 if d == 1 else 0.25, dilated=True)
    pooled = x.mean((2, 3), keepdim=True)
    pooled = F.relu(conv(w, pooled, "image_pooling", width, 1, bias=True))
    point = F.relu(conv(w, x, "aspp0", width, 1, bias=True))
    x = torch.cat([pooled.expand_as(point), point], 1)
    x = F.relu(conv(w, x, "concat_projection", width, 1, bias=True))
    x = conv(w, x, "logits/semantic", classes, 1, bias=True)
    return [F.interpolate(x, size=size, mode="bilinear", align_corners=True)]


# DeepLab v3 and v3+: spec/deeplab.md, section 3; Chen et al. 2018, section 3.1.


def resnet(
    w: Weights, x: torch.Tensor, width: int, strides, dilations, last: bool = False
) -> list[torch.Tensor]:
    """ResNet-50 and further stages; outputs of the stem and of all stages.

    `strides`, a number a stage, lie in the 3 x 3 of its first block, or in that of the `last`;
    `dilations`: of every block of every stage.
    """
    x = F.relu(w.norm("backbone.bn1", conv(w, x, "backbone.conv1", width, 7, stride=2), 1e-5))
    found = [x]
    x = F.max_pool2d(x, 3, 2, 1)
    for i, (stride, rates) in enumerate(zip(strides, dilations, strict=True)):
        inner = width * 2 ** min(i, 3)
        for block, rate in enumerate(rates):
            place = block == (len(rates) - 1 if last else 0)
            x = _bottleneck(w, x, i + 1, block, inner, stride if place else 1, rate)
        found.append(x)
    return found


def _bottleneck(w, x, stage: int, block: int, inner: int, stride: int, rate: int):
    if stage <= 4:
        name = f"backbone.layer{stage}.{block}"
        names = [(f"{name}.conv{i}", f"{name}.bn{i}") for i in (1, 2, 3)]
        names.append((f"{name}.downsample.0", f"{name}.downsample.1"))
    else:
        name = f"backbone/stage{stage + 1}/{block}"
        parts = [f"{name}/blocks/{i}" for i in range(3)] + [f"{name}/shortcut"]
        names = [(f"{part}/conv", f"{part}/norm") for part in parts]

    def step(x, i, *args, gain=1.0, **options):
        return w.norm(names[i][1], conv(w, x, names[i][0], *args, **options), 1e-5, gain)

    y = F.relu(step(x, 0, inner, 1))
    y = F.relu(step(y, 1, inner, 3, stride=stride, dilation=rate))
    y = step(y, 2, 4 * inner, 1, gain=0.25)
    if x.shape[1] != 4 * inner:
        x = step(x, 3, 4 * inner, 1, stride=stride)
    else:
        x = x[:, :, ::stride, ::stride]
    return F.relu(x + y)


_PLAIN = [[1] * 3, [1] * 4, [1] * 6]


def aspp(w: Weights, x: torch.Tensor, width: int, rates: Sequence[int]) -> torch.Tensor:
    """The image's features first, then 1 x 1, then the rates."""

    def block(x, name, norm, size, rate=1):
        x = conv(w, x, f"classifier.0.{name}", width, size, dilation=rate)
        return F.relu(w.norm(f"classifier.0.{norm}", x, 1e-5))

    count = len(rates)
    mean = x.mean((2, 3), keepdim=True)
    mean = block(mean, f"convs.{count + 1}.1", f"convs.{count + 1}.2", 1)
    parts = [mean.expand(-1, -1, *x.shape[2:]), block(x, "convs.0.0", "convs.0.1", 1)]
    for i, rate in enumerate(rates, 1):
        parts.append(block(x, f"convs.{i}.0", f"convs.{i}.1", 3, rate))
    return block(torch.cat(parts, 1), "project.0", "project.1", 1)


def deeplab_v3(w: Weights, x: torch.Tensor, *, d: int, classes: int) -> list[torch.Tensor]:
    """The paper's head on ResNet-50 at output stride 16, multi-grid (1, 2, 4)."""
    size = x.shape[2:]
    x = resnet(w, x, 64 // d, (1, 2, 2, 1), [*_PLAIN, [2, 4, 8]])[-1]
    x = conv(w, aspp(w, x, 256 // d, (6, 12, 18)), "classifier.4", classes, 1, bias=True)
    return [zoom(x, 16, size)]


def deeplab_v3plus(w: Weights, x: torch.Tensor, *, d: int, classes: int) -> list[torch.Tensor]:
    """The same, brought to conv2_x, of which 48 channels join it."""
    size, width = x.shape[2:], 256 // d
    stages = resnet(w, x, 64 // d, (1, 2, 2, 1), [*_PLAIN, [2, 4, 8]])
    x = aspp(w, stages[-1], width, (6, 12, 18))

    def block(x, name, width, size):
        return F.relu(w.norm(f"{name}/norm", conv(w, x, f"{name}/conv", width, size), 1e-5))

    fine = block(stages[1], "head/reduce", 48 // d, 1)
    x = torch.cat([zoom(x, 4, fine.shape[2:]), fine], 1)
    for i in range(2):
        x = block(x, f"head/refine/{i}", width, 3)
    return [zoom(conv(w, x, "classifier.4", classes, 1, bias=True), 4, size)]


def deeplab_v3_cascade(w: Weights, x: torch.Tensor, *, d: int, classes: int) -> list[torch.Tensor]:
    """Blocks 5 to 7 behind block 4, multi-grid (1, 2, 1); strides in the last units of blocks."""
    size = x.shape[2:]
    grids = [[rate * factor for factor in (1, 2, 1)] for rate in (2, 4, 8, 16)]
    x = resnet(w, x, 64 // d, (2, 2, 1, 1, 1, 1, 1), [*_PLAIN, *grids], last=True)[-1]
    return [zoom(conv(w, x, "head/classifier", classes, 1, bias=True), 16, size)]


_ASPP = (6, 12, 18, 24)
NETS = {  # name: (network, style of the names)
    "largefov": (lambda *a, **k: vgg(*a, **k, rates=(12,), average=True, branches=False), "torch"),
    "largefov_msc": (
        lambda *a, **k: vgg(*a, **k, rates=(12,), average=True, branches=True),
        "torch",
    ),
    "vgg16_aspp": (
        lambda *a, **k: vgg(*a, **k, rates=_ASPP, average=False, branches=False),
        "torch",
    ),
    "mobilenet_v2": (mobilenet_v2, "keras"),
    "deeplab_v3_mobilenet_v2": (deeplab_mobilenet, "tflite"),
    "deeplab_v3": (deeplab_v3, "torch"),
    "deeplab_v3_cascade": (deeplab_v3_cascade, "torch"),
    "deeplab_v3plus": (deeplab_v3plus, "torch"),
}


def make(name: str, divisor: int, classes: int) -> Own:
    """One of NETS, its widths divided by `divisor`."""
    net, style = NETS[name]
    return Own(lambda w, x: net(w, x, d=divisor, classes=classes), style)
