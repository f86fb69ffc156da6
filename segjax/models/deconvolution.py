"""Learned upsampling by two, which papers call a deconvolution layer.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, section
3.3.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from segjax.models import resize


class LearnedUp2(nnx.Module):
    """Transposed convolution of stride 2 that starts as bilinear upsampling.

    Args:
        features: channels, C.
        kernel: side of the kernel, k, even and 4 or more.
        mixes: True: every output channel reads all input channels, the others with a weight that
            starts at zero. False: every channel has a separate kernel.
    """

    def __init__(self, features: int, *, kernel: int = 4, mixes: bool = False):
        # Bilinear upsampling by 2 is 4 wide: a larger kernel starts with zeros around it.
        ramp = np.pad(resize.bilinear_kernel(4), (kernel - 4) // 2)
        start = np.outer(ramp, ramp)[:, :, None, None]
        pairs = np.eye(features) if mixes else np.ones((1, features))
        self.kernel = nnx.Param(jnp.asarray(start * pairs, jnp.float32))

    def __call__(
        self, x: jax.Array, size: tuple[int, int], *, start: int | None = None
    ) -> jax.Array:
        """[B, h, w, C] -> float32 [B, *size, C].

        Args:
            x: the map.
            size: H and W; start + H is at most 2h - 2 + k, the height of the full map.
            start: first row and column that are kept of the full map; None: (k - 2) / 2, which
                puts pixels 2i and 2i + 1 on pixel i of the input.
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
            precision="highest",  # as in `resize.apply`: accelerators would round the scores
        )
        start = (side - 2) // 2 if start is None else start
        return full[:, start : start + size[0], start : start + size[1]]
