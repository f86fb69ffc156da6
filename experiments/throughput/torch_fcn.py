"""FCN-8s on VGG-16 in PyTorch, layer for layer segjax's: the opponent of `bench`.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, without
batch norm, fc6 padded by 3, both 2x steps fixed bilinear.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

DEPTHS = (2, 2, 3, 3, 3)  # convolutions before each pooling


class FCN8s(nn.Module):
    """The network to logits at the size of the image.

    Args:
        num_classes: K.
        width: channels of stage 1.
        fc_width: channels of fc6 and fc7.
        dropout: rate after fc6 and fc7.
    """

    def __init__(self, num_classes: int, *, width: int, fc_width: int, dropout: float):
        super().__init__()
        channels = [3, *(width * scale for scale in (1, 2, 4, 8, 8))]
        self.stages = nn.ModuleList(
            nn.ModuleList(
                nn.Conv2d(channels[i] if j == 0 else channels[i + 1], channels[i + 1], 3, padding=1)
                for j in range(depth)
            )
            for i, depth in enumerate(DEPTHS)
        )
        self.fc6 = nn.Conv2d(channels[5], fc_width, 7, padding=3)
        self.fc7 = nn.Conv2d(fc_width, fc_width, 1)
        self.dropout = nn.Dropout(dropout)
        self.score_top = nn.Conv2d(fc_width, num_classes, 1)
        self.score_pool4 = nn.Conv2d(channels[4], num_classes, 1)
        self.score_pool3 = nn.Conv2d(channels[3], num_classes, 1)

    def forward(self, x: torch.Tensor, at_image: bool = True) -> torch.Tensor:
        """[B, 3, H, W] -> [B, K, H, W], or the scores at stride 8."""
        size, pooled = x.shape[2:], []
        for stage in self.stages:
            for conv in stage:
                x = functional.relu(conv(x), inplace=True)
            x = functional.max_pool2d(x, 2, ceil_mode=True)
            pooled.append(x)
        for conv in (self.fc6, self.fc7):
            x = self.dropout(functional.relu(conv(x), inplace=True))
        x = self.score_top(x)
        for score, skip in ((self.score_pool4, pooled[3]), (self.score_pool3, pooled[2])):
            x = _up(x, 2, skip.shape[2:]) + score(skip)
        return _up(x, 8, size) if at_image else x


def _up(x: torch.Tensor, factor: int, size: tuple[int, int]) -> torch.Tensor:
    x = functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    return x[:, :, : size[0], : size[1]]


def named_arrays(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """segjax's parameters (or gradients) under this network's names, kernels as [K, C, k, k]."""
    backbone, head = params["backbone"], params["head"]
    layers = {
        f"stages.{i}.{j}": backbone[f"stage{i + 1}"][str(j)]["conv"]
        for i, depth in enumerate(DEPTHS)
        for j in range(depth)
    }
    layers |= {name: backbone[name] for name in ("fc6", "fc7")}
    layers |= {name: head[name] for name in ("score_top", "score_pool4", "score_pool3")}
    found = {}
    for name, layer in layers.items():
        found[f"{name}.weight"] = np.asarray(layer["kernel"]).transpose(3, 2, 0, 1)
        found[f"{name}.bias"] = np.asarray(layer["bias"])
    return found


def load(model: FCN8s, params: Mapping[str, Any]) -> None:
    """Copies segjax's parameters in."""
    arrays = named_arrays(params)
    model.load_state_dict({name: torch.tensor(array.copy()) for name, array in arrays.items()})


def macs(size: tuple[int, int], num_classes: int, *, width: int, fc_width: int) -> dict[str, int]:
    """Multiplications of one image by layer, as the formula of each convolution counts them.

    Neither padding nor a fast algorithm is taken off; resizing, loss and update are not counted.
    """
    height, width_px = size
    found, features_in = {}, 3
    for i, (depth, scale) in enumerate(zip(DEPTHS, (1, 2, 4, 8, 8), strict=True)):
        for j in range(depth):
            found[f"stages.{i}.{j}"] = height * width_px * 9 * features_in * scale * width
            features_in = scale * width
        height, width_px = -(-height // 2), -(-width_px // 2)
        if i in (2, 3):
            found[f"score_pool{i + 1}"] = height * width_px * features_in * num_classes
    pixels = height * width_px
    found["fc6"] = pixels * 49 * features_in * fc_width
    found["fc7"] = pixels * fc_width * fc_width
    found["score_top"] = pixels * fc_width * num_classes
    return found
