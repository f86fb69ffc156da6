"""A small classifier without padding, run on every patch of an image and fully convolutionally.

Long, Shelhamer, Darrell 2015, section 3.1: both give the same scores, but neighbouring patches
overlap, and only the convolutional form computes what they share once. Scores that lie closer than
the network's stride come from shifted images (shift-and-stitch, section 3.2).
"""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from segjax.models import layers


class PatchNet(nnx.Module):
    """A small VGG without padding: stages of 3 x 3 convolutions and a pooling, then fc.

    Args:
        widths: channels of each stage.
        depth: convolutions in each stage.
        fc_kernel, fc_width: side and channels of the first fully connected layer.
        num_classes: K.
        rngs: supplies the initialisation keys.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        depth: int,
        fc_kernel: int,
        fc_width: int,
        num_classes: int,
        rngs: nnx.Rngs,
    ):
        stages, features = [], 3
        for width in widths:
            blocks = []
            for _ in range(depth):
                norm = {"name": "none"}
                blocks.append(
                    layers.ConvBlock(features, width, kernel=3, padding=0, norm=norm, rngs=rngs)
                )
                features = width
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.fc = layers.Conv(
            features, fc_width, kernel=fc_kernel, padding=0, use_bias=True, rngs=rngs
        )
        self.score = nnx.Conv(
            fc_width, num_classes, (1, 1), padding="VALID", kernel_init=layers.he_normal, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, 3] -> [B, h, w, K]; a patch of `geometry` pixels gives [B, 1, 1, K]."""
        for stage in self.stages:
            for block in stage:
                x = block(x)
            x = layers.max_pool_2x2(x)
        return self.score(nnx.relu(self.fc(x)))


def geometry(*, widths: Sequence[int], depth: int, fc_kernel: int, **_) -> tuple[int, int]:
    """Side of the patch that one score sees, and pixels between neighbouring scores."""
    field = fc_kernel
    for _ in widths:
        field = 2 * field + 2 * depth
    return field, 2 ** len(widths)


def patchwise(net: Callable, image: jax.Array, *, field: int, stride: int, batch: int) -> jax.Array:
    """Scores of the patches that begin at every `stride`-th pixel: [H, W, 3] -> [n, m, K].

    `batch` patches are cut and classified at a time.
    """
    rows, cols = ((size - field) // stride + 1 for size in image.shape[:2])
    corners = stride * np.stack(np.divmod(np.arange(rows * cols), cols), axis=1)
    missing = -len(corners) % batch
    corners = np.concatenate([corners, np.repeat(corners[-1:], missing, axis=0)])

    def classify(corners):
        def cut(corner):
            return jax.lax.dynamic_slice(image, (*corner, 0), (field, field, 3))

        return net(jax.vmap(cut)(corners))[:, 0, 0]

    scores = jax.lax.map(classify, jnp.asarray(corners.reshape(-1, batch, 2)))
    return scores.reshape(-1, scores.shape[-1])[: rows * cols].reshape(rows, cols, -1)


def convolutional(
    net: Callable, image: jax.Array, *, field: int, stride: int, net_stride: int
) -> jax.Array:
    """The same scores from the whole image: [H, W, 3] -> [n, m, K].

    Strides above the network's take some of its map; below, its maps of shifted images interlace.
    """
    rows, cols = ((size - field) // stride + 1 for size in image.shape[:2])
    shifts = np.arange(0, net_stride, min(stride, net_stride))
    step = max(1, stride // net_stride)
    cells = [-(-((n - 1) * step + 1) // len(shifts)) for n in (rows, cols)]
    window = [field + (n - 1) * net_stride for n in cells]
    # Windows that begin beyond the last patch may leave the image; their scores are cropped again.
    image = jnp.pad(image, ((0, net_stride), (0, net_stride), (0, 0)))

    def score(shift):
        return net(jax.lax.dynamic_slice(image, (*shift, 0), (*window, 3))[None])[0]

    corners = np.array(list(itertools.product(shifts, shifts)), np.int32)
    maps = jax.lax.map(score, jnp.asarray(corners))
    maps = maps.reshape(len(shifts), len(shifts), *cells, -1).transpose(2, 0, 3, 1, 4)
    stitched = maps.reshape(cells[0] * len(shifts), cells[1] * len(shifts), -1)
    return stitched[::step, ::step][:rows, :cols]
