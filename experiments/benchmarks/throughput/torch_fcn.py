"""FCN-8s on VGG-16 in PyTorch, layer for layer segjax's: the opponent of `bench`.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, without
batch norm, fc6 padded by 3, both 2x steps fixed bilinear.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from segjax.models.importers import pytorch

DEPTHS = (2, 2, 3, 3, 3)  # convolutions before each pooling
FC = 64  # channels of fc6 and fc7, of those of stage 1


class FCN8s(nn.Module):
    """The network to logits at the size of the image.

    Args:
        num_classes: K.
        width: channels of stage 1; fc6 and fc7 have FC times that.
        dropout: rate after fc6 and fc7.
    """

    def __init__(self, num_classes: int, *, width: int, dropout: float):
        super().__init__()
        fc_width = FC * width
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

    def forward(self, x: torch.Tensor, at_image: bool = True) -> list[torch.Tensor]:
        """[B, 3, H, W] -> [[B, K, H, W]], or the scores at stride 8."""
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
        return [_up(x, 8, size) if at_image else x]


def _up(x: torch.Tensor, factor: int, size: tuple[int, int]) -> torch.Tensor:
    x = functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    return x[:, :, : size[0], : size[1]]


def our_arrays(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """This network's arrays by segjax's paths, as `weights.Origin.convert` gives them."""
    return pytorch.rename(arrays, _path), {}


def _path(layer: str) -> str:
    if layer.startswith("stages."):
        _, stage, block = layer.split(".")
        return f"backbone/stage{int(stage) + 1}/{block}/conv"
    return f"{'head' if layer.startswith('score') else 'backbone'}/{layer}"
