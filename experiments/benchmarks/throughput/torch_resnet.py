"""DeepLab v3 and PSPNet on ResNet-50 in PyTorch, layer for layer segjax's: opponents of `bench`.

Chen et al.: Rethinking Atrous Convolution, 2017: output stride 16, multi-grid (1, 2, 4), ASPP of
rates 6, 12 and 18. Zhao et al.: Pyramid Scene Parsing Network, CVPR 2017: deep stem, output stride
8, auxiliary head. Modules have the names of torchvision and of semseg, so that segjax's importers
read their weights.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

DEPTHS = (3, 4, 6, 3)


def conv_block(features_in: int, features: int, kernel: int, dropout=(), **options) -> list:
    """Convolution, norm, ReLU, of the same size at stride 1."""
    padding = options.get("dilation", 1) * (kernel // 2)
    conv = nn.Conv2d(features_in, features, kernel, padding=padding, bias=False, **options)
    return [conv, nn.BatchNorm2d(features), nn.ReLU(inplace=True), *dropout]


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with stride and dilation, 1 x 1, and a shortcut."""

    def __init__(self, features_in: int, width: int, stride: int, dilation: int):
        super().__init__()
        self.conv1, self.bn1, _ = conv_block(features_in, width, 1)
        self.conv2, self.bn2, _ = conv_block(width, width, 3, stride=stride, dilation=dilation)
        self.conv3, self.bn3, _ = conv_block(width, 4 * width, 1)
        self.downsample = None
        if features_in != 4 * width:
            shortcut = conv_block(features_in, 4 * width, 1, stride=stride)
            self.downsample = nn.Sequential(*shortcut[:2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, h, w] -> [B, 4 width, ceil(h / stride), ceil(w / stride)]."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (self.downsample(x) if self.downsample else x), inplace=True)


def stages(features: int, width: int, strides: Sequence[int], dilations: Sequence) -> list:
    """The four stages of ResNet-50; `dilations`: of every block of every stage."""
    found = []
    for i, (stride, rates) in enumerate(zip(strides, dilations, strict=True)):
        inner, blocks = width * 2**i, []
        for block, rate in enumerate(rates):
            blocks.append(Bottleneck(features, inner, 1 if block else stride, rate))
            features = 4 * inner
        found.append(nn.Sequential(*blocks))
    return found


def zoom(x: torch.Tensor, factor: int, size: Sequence[int]) -> torch.Tensor:
    """n -> (n - 1) factor + 1, corners on corners; cropped, or its border repeated, to size."""
    grown = [(n - 1) * factor + 1 for n in x.shape[2:]]
    x = functional.interpolate(x, size=grown, mode="bilinear", align_corners=True)
    x = x[:, :, : size[0], : size[1]]
    for axis, length in zip((2, 3), size, strict=True):
        last = x.narrow(axis, x.shape[axis] - 1, 1)
        # Not functional.pad: torch.compile cannot differentiate its "replicate" in NHWC.
        x = torch.cat([x] + [last] * max(0, length - x.shape[axis]), axis)
    return x


class _Trunk(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.bn1, _ = conv_block(3, width, 7, stride=2)
        dilations = [[1] * 3, [1] * 4, [1] * 6, [2, 4, 8]]
        parts = stages(width, width, (1, 2, 2, 1), dilations)
        self.layer1, self.layer2, self.layer3, self.layer4 = parts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class _ASPP(nn.Module):
    def __init__(self, features: int, width: int, rates: Sequence[int], dropout: float):
        super().__init__()
        branches = [conv_block(features, width, 1)]
        branches += [conv_block(features, width, 3, dilation=rate) for rate in rates]
        branches.append([nn.AdaptiveAvgPool2d(1), *conv_block(features, width, 1)])
        self.convs = nn.ModuleList(nn.Sequential(*branch) for branch in branches)
        last = conv_block(len(branches) * width, width, 1, [nn.Dropout(dropout)])
        self.project = nn.Sequential(*last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *branches, image = [branch(x) for branch in self.convs]
        return self.project(torch.cat([image.expand_as(branches[0]), *branches], 1))


class DeepLabV3(nn.Module):
    """The network to logits at the size of the image.

    Args:
        num_classes: K.
        width: channels of the first convolution; the paper's is 64, all others in proportion.
        dropout: rate behind the pyramid.
    """

    def __init__(self, num_classes: int, *, width: int, dropout: float):
        super().__init__()
        self.backbone = _Trunk(width)
        aspp = _ASPP(32 * width, 4 * width, (6, 12, 18), dropout)
        score = nn.Conv2d(4 * width, num_classes, 1)
        self.classifier = nn.ModuleDict({"0": aspp, "4": score})
        draw(self)

    def forward(self, x: torch.Tensor, at_image: bool = True) -> list[torch.Tensor]:
        """[B, 3, H, W] -> [[B, K, H, W]], or the scores at stride 16."""
        scores = self.classifier["4"](self.classifier["0"](self.backbone(x)))
        return [zoom(scores, 16, x.shape[2:]) if at_image else scores]


class _Pyramid(nn.Module):
    def __init__(self, features: int, bins: Sequence[int]):
        super().__init__()
        self.features = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), *conv_block(features, features // len(bins), 1))
            for n in bins
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stretch = {"size": x.shape[2:], "mode": "bilinear", "align_corners": True}
        scales = [functional.interpolate(scale(x), **stretch) for scale in self.features]
        return torch.cat([x, *scales], 1)


class PSPNet(nn.Module):
    """The network to logits at the size of the image, those of the auxiliary head second.

    Args:
        num_classes: K.
        width: channels of the first convolution; the paper's is 64, all others in proportion.
        dropout: rate of maps before the scores.
    """

    def __init__(self, num_classes: int, *, width: int, dropout: float):
        super().__init__()
        pool = nn.MaxPool2d(3, 2, 1)
        stem = conv_block(3, width, 3, stride=2) + conv_block(width, width, 3)
        self.layer0 = nn.Sequential(*stem, *conv_block(width, 2 * width, 3), pool)
        dilations = [[1] * 3, [1] * 4, [2] * 6, [4] * 3]
        parts = stages(2 * width, width, (1, 2, 1, 1), dilations)
        self.layer1, self.layer2, self.layer3, self.layer4 = parts
        self.ppm = _Pyramid(32 * width, (1, 2, 3, 6))

        def head(features: int, inner: int) -> nn.Sequential:
            block = conv_block(features, inner, 3, [nn.Dropout2d(dropout)])
            return nn.Sequential(*block, nn.Conv2d(inner, num_classes, 1))

        self.cls, self.aux = head(64 * width, 8 * width), head(16 * width, 4 * width)
        draw(self)

    def forward(self, x: torch.Tensor, at_image: bool = True) -> list[torch.Tensor]:
        """[B, 3, H, W] -> [B, K, H, W] of both heads, evaluating of the first; or at stride 8."""
        size = x.shape[2:]
        fourth = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        found = [self.cls(self.ppm(self.layer4(fourth)))]
        if self.training:
            found.append(self.aux(fourth))
        return [zoom(scores, 8, size) for scores in found] if at_image else found


def draw(model: nn.Module) -> None:
    """Kernels as large as their fan-in allows without the signal growing over the 16 blocks."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
