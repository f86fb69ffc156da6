"""Learned upsampling by two: the field's "deconvolution" layer.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, section
3.3.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from segjax.models import resize


class LearnedUp2(nnx.Module):
    """Transposed convolution of stride 2, bilinear at the start.

    Args:
        features: C.
        kernel: k, its side, even.
        mixes: every channel takes part in every other, from a weight of zero on; False: one kernel
            a channel.
    """

    def __init__(self, features: int, *, kernel: int = 4, mixes: bool = False):
        # Its own triangle has a width of 4 whatever the kernel's: beyond it the weights are zero.
        ramp = np.pad(resize.bilinear_kernel(4), (kernel - 4) // 2)
        start = np.outer(ramp, ramp)[:, :, None, None]
        pairs = np.eye(features) if mixes else np.ones((1, features))
        self.kernel = nnx.Param(jnp.asarray(start * pairs, jnp.float32))

    def __call__(self, x: jax.Array, size: tuple[int, int], *, start: int | None = None):
        """[B, h, w, C] -> float32 [B, *size, C].

        Args:
            x: the map.
            size: H, W, at most 2h and 2w.
            start: first row and column taken of the full map of 2h - 2 + k; None: those where the
                pixels lie on the input's, (k - 2) / 2.
        """
        kernel = self.kernel[...]
        side, groups = kernel.shape[0], 1 if kernel.shape[2] > 1 else x.shape[-1]
        full = jax.lax.conv_general_dilated(
            x.astype(jnp.float32),
            kernel[::-1, ::-1],  # a transposed convolution runs its kernel mirrored
            window_strides=(1, 1),
            padding=((side - 1, side - 1),) * 2,
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
            precision="highest",  # as `resize.apply`: scores are not rounded on accelerators
        )
        start = (side - 2) // 2 if start is None else start
        return full[:, start : start + size[0], start : start + size[1]]
