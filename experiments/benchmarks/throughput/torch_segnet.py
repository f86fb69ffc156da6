"""SegNet in PyTorch, layer for layer segjax's: an opponent of `bench`.

Badrinarayanan, Kendall, Cipolla: SegNet, PAMI 2017, section 3, as in the release: a bias beside
each batch norm, no ReLU after the scores.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from segjax.models.importers import pytorch

DEPTHS = (2, 2, 3, 3, 3)  # convolutions before each pooling
WIDTHS = (1, 2, 4, 8, 8)  # of those of stage 1
_EPSILON = 1e-9


class SegNet(nn.Module):
    """The network to logits at the size of the image.

    Args:
        num_classes: K.
        width: channels of stage 1.
        dropout: not used: the network has none.
    """

    def __init__(self, num_classes: int, *, width: int, dropout: float):
        super().__init__()
        del dropout
        channels = [width * times for times in WIDTHS]
        before = [3, *channels]
        self.encoder = nn.ModuleList(
            _stage(before[i], [channels[i]] * depth) for i, depth in enumerate(DEPTHS)
        )
        finer = [channels[0], *channels]
        self.decoder = nn.ModuleList(
            _stage(channels[i], [channels[i]] * (depth - 1) + [finer[i]] * (i > 0))
            for i, depth in enumerate(DEPTHS)
        )
        self.score = nn.Conv2d(channels[0], num_classes, 3, padding=1)

    def forward(self, x: torch.Tensor, at_image: bool = True) -> list[torch.Tensor]:
        """[B, 3, H, W] -> [[B, K, H, W]]."""
        del at_image  # the scores lie there
        places = []
        for stage in self.encoder:
            for block in stage:
                x = block(x)
            size = x.shape[2:]
            x, index = functional.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            places.append((index, size))
        for stage, (index, size) in zip(reversed(self.decoder), reversed(places), strict=True):
            x = functional.max_unpool2d(x, index, 2, 2, output_size=size)
            for block in stage:
                x = block(x)
        return [self.score(x)]


class _Block(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(self, features_in: int, features: int):
        super().__init__()
        self.conv = nn.Conv2d(features_in, features, 3, padding=1)
        self.norm = nn.BatchNorm2d(features, eps=_EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.norm(self.conv(x)), inplace=True)


def _stage(features_in: int, widths: list[int]) -> nn.ModuleList:
    pairs = zip([features_in, *widths], widths, strict=False)
    return nn.ModuleList(_Block(a, b) for a, b in pairs)


def our_arrays(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """This network's arrays by segjax's paths, as `weights.Origin.convert` gives them."""
    found, counters = pytorch.without_counters(arrays)
    return pytorch.rename(found, _path), counters


def _path(layer: str) -> str:
    if layer == "score":
        return "head/score"
    side, stage, block, kind = layer.split(".")
    part = {"encoder": "backbone", "decoder": "head"}[side]
    return f"{part}/stage{int(stage) + 1}/{block}/{kind}"
