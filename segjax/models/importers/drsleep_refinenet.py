"""Importer of RefineNet in the names of github.com/DrSleep/refinenet-pytorch.

It is the port of the authors' MATLAB code. `layer1.0.conv1` (torchvision's names),
`p_ims1d2_outl1_dimred` (1 is stage 5, 4 is stage 2), `adapt_stage1_b.0.1_conv`,
`mflow_conv_g1_pool.0.1_outvar_dimred`, `clf_conv`. The 3 x 3 of a block has the stride; the head
has chains of four poolings, "pool_first", and the `align` "corners".
"""

import re
from collections.abc import Mapping

import numpy as np

from segjax.models.importers import pytorch, torchvision_resnet

_UNIT = r"\.0\.(?P<block>\d+)_conv(?P<second>_relu_varout_dimred)?"
_PLACES = {
    r"p_ims1d2_outl(?P<group>[1-4])_dimred": "{stage}/reduce",
    rf"adapt_stage(?P<group>[1-4])_b{_UNIT}": "{stage}/before/{block}/{half}",
    r"adapt_stage(?P<group>[1-4])_b2_joint_varout_dimred": "{stage}/join",
    r"mflow_conv_g(?P<group>[1-4])_pool\.0\.(?P<block>\d+)_outvar_dimred": (
        "{stage}_refined/chain/convs/{block}"
    ),
    rf"mflow_conv_g(?P<group>[1-4])_b{_UNIT}": "{stage}_refined/after/{block}/{half}",
    r"mflow_conv_g(?P<group>[1-4])_b3_joint_varout_dimred": "{stage}_refined/onward",
}


def is_refinenet(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds a RefineNet."""
    return "p_ims1d2_outl1_dimred.weight" in arrays


def refinenet(
    arrays: Mapping[str, np.ndarray], _shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Converts a RefineNet for the head of four blocks: see `importers.Origin`."""
    arrays, unused = pytorch.without_counters(arrays)
    return pytorch.rename(arrays, _find), unused


def _find(layer: str) -> str | None:
    if layer == "clf_conv":
        return "head/score"
    for theirs, ours in _PLACES.items():
        if parts := re.fullmatch(theirs, layer):
            groups = parts.groupdict()
            stage, block = 6 - int(groups["group"]), int(groups.get("block", 1)) - 1
            half = "second" if groups.get("second") else "first"
            return "head/" + ours.format(stage=f"stage{stage}", block=block, half=half)
    return torchvision_resnet.trunk(layer)
