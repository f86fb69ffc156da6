"""The places of the features of every backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax.models import BACKBONES
from segjax.models.features import Features
from tests.models import zoo

NONE = {"name": "none"}
ATROUS = {"fc_kernel": 3, "fc_width": 2, "width": 1, "dropout": 0.0, "average": True}
DEEP = {"depth": zoo.BOTTLENECK, "norm": NONE, "width": 1}
MADE = {
    "resnet 32": ("resnet", DEEP),
    "resnet 8": ("resnet", DEEP | {"output_stride": 8, "stride_in": "1x1", "stem": "deep"}),
    "resnet last": ("resnet", DEEP | {"depth": 18, "stride_in": "last", "pool_rounding": "ceil"}),
    "mobilenet_v2 32": ("mobilenet_v2", {"norm": NONE, "width": 0.1}),
    "mobilenet_v2 16": ("mobilenet_v2", {"norm": NONE, "width": 0.1, "output_stride": 16}),
    "vgg16_atrous": ("vgg16_atrous", ATROUS | {"rates": (2,)}),
}


def answers(name: str, rows: int, axis: int) -> tuple[Features, dict[str, np.ndarray]]:
    """Strides and shifts, and stage -> bool [pixels, cells]: whether a cell responds to a pixel.

    All weights are positive, so that nothing cancels. Pixels lie on a line along the axis.
    """
    cls, options = MADE[name]
    backbone = BACKBONES[cls](**options, rngs=nnx.Rngs(0))
    backbone.eval()
    graph, params, rest = nnx.split(backbone, nnx.Param, ...)

    def opened(path, leaf):
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        if where.endswith("bias"):
            return jnp.zeros(leaf.shape)
        return jnp.full(leaf.shape, 1 / leaf[..., 0].size)

    params = jax.tree_util.tree_map_with_path(opened, nnx.as_pure(params))
    shape = (rows, rows, 1, 3) if axis == 0 else (rows, 1, rows, 3)
    pixels = jnp.broadcast_to(jnp.eye(rows).reshape(shape[:3])[..., None], shape)
    kept = {}

    @jax.jit
    def run(params, x):
        features = nnx.merge(graph, params, rest)(x)
        kept["strides"], kept["shifts"] = features.strides, features.shifts
        return {
            stage: values.max(axis=(2 - axis, 3)) > 0 for stage, values in features.stages.items()
        }

    seen = jax.device_get(run(params, pixels))
    return Features({}, kept["strides"], shifts=kept["shifts"]), seen


@pytest.mark.parametrize(
    ("odd", "axis"), [(0, 1), (1, 0), *(pytest.param(n, n, marks=pytest.mark.slow) for n in (0, 1))]
)
@pytest.mark.parametrize("name", sorted(MADE))
def test_every_stage_lies_where_its_shift_says(name, odd, axis):
    rows = (256 if name.startswith("resnet ") and "last" not in name else 640) + odd
    features, seen = answers(name, rows, axis)
    assert seen.keys() == features.strides.keys()
    for stage, lit in seen.items():
        stride, checked = features.strides[stage], 0
        assert lit.shape[1] >= -(-rows // stride)
        for cell in range(lit.shape[1]):
            first, last = np.flatnonzero(lit[:, cell])[[0, -1]]
            if first > 0 and last < rows - 1:  # not cut off at the border
                shift = features.shifts[stage][axis]
                assert (first + last + 1) / 2 == stride * cell + stride / 2 + shift, (stage, cell)
                checked += 1
        assert checked >= 2, stage
