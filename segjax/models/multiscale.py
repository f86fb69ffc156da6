"""One network on an image at several scales, its scores fused.

Chen et al.: DeepLab, PAMI 2018, section 4.1.1: the network runs at 1, 0.75 and 0.5, and every score
is the maximum over scales; the training sums the loss of every scale and that of their maximum.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from segjax.errors import InputError
from segjax.models import resize
from segjax.models.features import Scores


def fused(
    network: Callable[[jax.Array], Scores], x: jax.Array, scales: tuple[float, ...], align: str
) -> tuple[Scores, ...]:
    """Runs a network at every scale: [B, H, W, 3] -> the maximum's Scores, then every scale's.

    Args:
        network: shares its weights among the scales.
        x: the image, which is resized bilinearly with half-pixel centres, to floor(scale H), at
            least 1.
        scales: the first is 1; its grid is that of the maximum.
        align: how scores of the other scales come to it, and to the image: "corners" (the Caffe
            release's Interp) or "half_pixel" (PyTorch's).

    Raises:
        InputError: if the first scale is not 1, or one is not above 0.
    """
    if not scales or scales[0] != 1 or min(scales) <= 0:
        raise InputError(
            f"config.model.multi_scale.scales: {scales}; the first is 1, all are above 0."
        )
    size = x.shape[1:3]
    how = resize.Resize(align)
    outputs = [network(x)]
    for scale in scales[1:]:
        small = tuple(max(1, int(n * scale)) for n in size)
        shrunk = resize.resized(x, small, resize.Resize("half_pixel"))
        outputs.append(network(shrunk.astype(x.dtype)).replace(resize=how))
    grid = outputs[0].values.shape[1:3]
    values = [outputs[0].values.astype(jnp.float32)]
    for scores in outputs[1:]:
        values.append(resize.resized(scores.values, grid, how))
    most = functools.reduce(jnp.maximum, values)
    return outputs[0].replace(values=most), *outputs
