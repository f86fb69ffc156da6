"""Learned upsampling by two, which papers call a deconvolution layer.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, section
3.3.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from segjax import strips
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
        x, kernel = x.astype(jnp.float32), self.kernel[...]
        side = kernel.shape[0]
        start = (side - 2) // 2 if start is None else start
        if strips.count() == 1:
            return _full(x, kernel)[:, start : start + size[0], start : start + size[1]]
        # Rows 2p and 2p + 1 of the result read those of x from p - before on.
        before, last = (side - 1 - start) // 2, (start + 1) // 2

        def pairs_of_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
            pairs = x.shape[1] - before - last
            first = start + 2 * before
            y = _full(x, kernel)[:, first : first + 2 * pairs, start : start + size[1]]
            return y.reshape(y.shape[0], pairs, 2, *y.shape[2:])

        rows = -(-size[0] // 2)
        y = strips.windows(
            pairs_of_rows, x, kernel, reach=before + last + 1, rows=rows, before=before
        )
        return y.reshape(y.shape[0], 2 * rows, *y.shape[3:])[:, : size[0]]


def _full(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The whole result: [B, h, w, C], [k, k, c, C] -> [B, 2h - 2 + k, 2w - 2 + k, C]."""
    side = kernel.shape[0]
    return jax.lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],  # a transposed convolution runs its kernel mirrored
        window_strides=(1, 1),
        padding=((side - 1, side - 1),) * 2,
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=1 if kernel.shape[2] > 1 else x.shape[-1],
        precision="highest",  # as in `resize.apply`: accelerators would round the scores
    )
