"""The networks of `bench`: segjax's recipe, its twin in PyTorch, and the names between them."""

import dataclasses
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from torch import nn

from experiments.benchmarks.throughput import torch_fcn, torch_resnet, torch_segnet
from segjax.configs import deeplab_v3_resnet50, fcn8s, pspnet_resnet50, segnet
from segjax.models import importers


@dataclasses.dataclass(frozen=True)
class Net:
    """One network on both sides.

    Attributes:
        recipe: of segjax.
        twin: (K, width=, dropout=) -> the module of PyTorch; a list of logits, the network's first.
        convert: the twin's arrays -> segjax's, as `weights.Origin.convert`.
        widths: keys of the recipe's `model` that grow with the width -> how much of it they are.
        dropouts: keys of the recipe's `model` that hold a rate of dropout.
        dropout: that rate.
        changes: other keys of the recipe's `model`, and what they are here.
    """

    recipe: ModuleType
    twin: Callable[..., nn.Module]
    convert: Callable
    widths: Mapping[str, int | tuple[int, ...]]
    dropouts: tuple[str, ...]
    dropout: float
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


NETS = {
    "fcn8s": Net(
        fcn8s,
        torch_fcn.FCN8s,
        torch_fcn.our_arrays,
        {"backbone.width": 1, "backbone.fc_width": torch_fcn.FC},
        ("backbone.dropout",),
        0.5,
        {"backbone.batch_norm": False},
    ),
    "deeplab_v3": Net(
        deeplab_v3_resnet50,
        torch_resnet.DeepLabV3,
        importers.ORIGINS["torchvision_deeplab_v3"].convert,
        {"backbone.width": 1, "head.width": 4},
        ("head.dropout",),
        0.1,
    ),
    "segnet": Net(
        segnet,
        torch_segnet.SegNet,
        torch_segnet.our_arrays,
        {"backbone.widths": torch_segnet.WIDTHS},
        (),
        0.0,
    ),
    "pspnet": Net(
        pspnet_resnet50,
        torch_resnet.PSPNet,
        importers.ORIGINS["semseg_pspnet"].convert,
        {"backbone.width": 1, "head.width": 8, "aux.width": 4},
        ("head.dropout", "aux.dropout"),
        0.1,
    ),
}
