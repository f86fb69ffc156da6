"""The data between the parts of a network: `Features` go into a head, `Scores` come out of it."""

import dataclasses
import math
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from segjax import arrays
from segjax.arrays import Size
from segjax.errors import choose
from segjax.models.resize import Resize
from segjax.models.unpooling import Selection

ALIGNMENTS = ("centres", "corners", "half_pixel")
"""Rules that bring a stage to a finer grid: see `Features.to_image`."""


@dataclasses.dataclass(frozen=True)
class Features:
    """The stages that a backbone computes from a batch of images, and where they lie.

    Attributes:
        stages: name -> [B, h, w, C]: "stage1" to "stage5" (`stageN` ends with the N-th pooling or
            stride) and stages that a backbone adds, such as VGG's "fc7".
        strides: name -> image pixels per feature.
        border: "same": feature i covers `stride` pixels from pixel stride x i on, moved by its
            shift. "caffe": the network ran on an image padded by 100 pixels, and heads crop by
            the release's offsets.
        shifts: name -> (down, right) in image pixels: the distance from the centre of a block of
            stride x stride pixels to the centre of its feature. A stage that is not listed has no
            shift. Unpadded poolings and strides that start at the first pixel cause shifts.
        pool_selections: name -> the choices of max pooling, for networks that unpool.
    """

    stages: Mapping[str, jax.Array]
    strides: Mapping[str, int]
    border: str = "same"
    shifts: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    pool_selections: Mapping[str, Selection] = dataclasses.field(default_factory=dict)

    def upsampling(self, coarse: str, fine: str | None = None) -> Resize:
        """The resize from a stage to the grid of a finer one, centre on centre.

        It is bilinear and clamps beyond the outermost centres. It holds for `border` "same" only.

        Args:
            coarse: name of the stage that is resized.
            fine: name of the finer stage; None: the image.
        """
        no_shift = (0.0, 0.0)
        stride, shift = 1, no_shift
        if fine is not None:
            stride, shift = self.strides[fine], self.shifts.get(fine, no_shift)
        coarse_shift = self.shifts.get(coarse, no_shift)
        down, right = ((a - b) / stride for a, b in zip(shift, coarse_shift, strict=True))
        return Resize("half_pixel", self.strides[coarse] // stride, (down, right))

    def between(self, coarse: str, fine: str, align: str) -> Resize:
        """The resize from a stage to the grid of a finer one; `align` is that of `to_image`.

        Raises:
            InputError: if `align` is not one of ALIGNMENTS.
        """
        choose("config.model.*.align", align, ALIGNMENTS)
        return self.upsampling(coarse, fine) if align == "centres" else Resize(align)

    def to_image(self, stage: str, align: str) -> Resize:
        """The resize from the scores of a stage to the image.

        Args:
            stage: name of the stage.
            align: "centres" places every score where its centre lies. For networks whose strides
                start at the first pixel this equals, at every size, the corner-aligned zoom of
                their Caffe and TensorFlow releases. "corners" and "half_pixel" stretch the map
                over the image by that convention, as implementations do that ignore the centres.

        Raises:
            InputError: if `align` is not one of ALIGNMENTS.
        """
        choose("config.model.*.align", align, ALIGNMENTS)
        return self.upsampling(stage) if align == "centres" else Resize(align)


@flax.struct.dataclass
class Scores:
    """Class scores at the resolution of the head, and the resize that brings them to the image.

    Attributes:
        values: float [B, h, w, K], before softmax.
        resize: from the grid of `values` to the pixels of the network's input.
        overflow: int32 [B], set by a CRF alone (whose `values` lie on the image's pixels): the
            vertices that an image needs if they exceed the lattice's capacity, else 0.
    """

    values: jax.Array
    resize: Resize = flax.struct.field(pytree_node=False)
    overflow: jax.Array | None = None

    def crf_scalars(self) -> dict[str, jax.Array]:
        """{"crf_vertices_wanted": float32 []}: lattice vertices per pixel that the images need.

        The value is 0 if no image overflowed the lattice. Without a CRF the dict is empty.
        """
        if self.overflow is None:
            return {}
        pixels = math.prod(arrays.map_size(self.values))
        return {"crf_vertices_wanted": jnp.max(self.overflow).astype(jnp.float32) / pixels}

    def sample(self, label: jax.Array) -> jax.Array:
        """The label of the pixel nearest to each score: [B, H, W] -> [B, h, w]."""
        rows, cols = (
            self.resize.centres(self.values.shape[axis], label.shape[axis], axis - 1)
            for axis in (1, 2)
        )
        return label[:, rows][:, :, cols]

    def matrices(self, size: Size, seen: Size | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The resize from `values` to an image as two matrices, float32 [H, h] and [W, w].

        Args:
            size: H and W of the image.
            seen: size of the network's input, if the image was resized for it; None: `size`. A
                head whose resize stretches as images are resized comes to the image in one step
                (see `Resize.continues`), others through the size of the input: the product of two
                matrices.
        """
        seen, back = seen or size, Resize("half_pixel")
        if self.resize.continues(back):
            seen = size
        up = self.resize.matrices(arrays.map_size(self.values), seen)
        rows, cols = (
            matrix if net == image else back.matrix(net, image) @ matrix
            for matrix, net, image in zip(up, seen, size, strict=True)
        )
        return rows, cols
