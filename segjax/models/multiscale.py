"""One network at several scales of the image, with the maximum of its scores.

Chen et al.: DeepLab, PAMI 2018, section 4.1.1: the network runs at scales 1, 0.75 and 0.5, and
every score is the maximum over scales; training sums the losses of every scale and of the maximum.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from segjax import arrays
from segjax.errors import InputError
from segjax.models import resize
from segjax.models.features import Scores


def fused(
    network: Callable[[jax.Array], Scores], x: jax.Array, scales: tuple[float, ...], align: str
) -> tuple[Scores, ...]:
    """Scores of the maximum over scales, then the scores of every scale.

    Args:
        network: [B, h, w, 3] -> Scores; all scales share its weights.
        x: float [B, H, W, 3], the images. For a scale they are resized to max(1, floor(scale H))
            rows, bilinearly with half-pixel centres.
        scales: the first is 1, and the maximum lies on its grid.
        align: the convention that resizes the scores of the other scales to this grid and to the
            image: "corners" (Interp of the Caffe release) or "half_pixel" (PyTorch).

    Raises:
        InputError: if the first scale is not 1 or a scale is not above 0.
    """
    if not scales or scales[0] != 1 or min(scales) <= 0:
        raise InputError(
            "config.model.multi_scale.scales: the first must be 1 and all must be above 0, "
            f"got {scales}."
        )
    height, width = arrays.map_size(x)
    rule = resize.Resize(align)
    outputs = [network(x)]
    for scale in scales[1:]:
        small = max(1, int(height * scale)), max(1, int(width * scale))
        shrunk = resize.resized(x, small, resize.Resize("half_pixel"), x.dtype)
        scores = network(shrunk)
        outputs.append(dataclasses.replace(scores, resize=rule))
    grid = arrays.map_size(outputs[0].values)
    values = [outputs[0].values.astype(jnp.float32)]
    for scores in outputs[1:]:
        values.append(resize.resized(scores.values, grid, rule))
    maximum = functools.reduce(jnp.maximum, values)
    return dataclasses.replace(outputs[0], values=maximum), *outputs
