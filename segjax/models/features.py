"""What flows between the parts of a model: `Features` into a head, `Scores` out of it."""

import dataclasses
import math
from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from segjax.errors import choose
from segjax.models.resize import Resize
from segjax.models.unpooling import Selection

ALIGNMENTS = ("centres", "corners", "half_pixel")


@dataclasses.dataclass(frozen=True)
class Features:
    """What a backbone gives its head.

    Attributes:
        stages: name -> [B, h, w, C]: "stage1" to "stage5" (`stageN` ends with the N-th pooling or
            stride) and what the backbone adds, such as VGG's "fc7".
        strides: name -> image pixels per feature pixel.
        border: "same" where feature i covers the pixels from stride x i on, but for its shift;
            "caffe" where the network ran on an image padded by 100 (heads then crop by the
            release's offsets).
        shifts: name -> image pixels, (down, right), by which the centres of features lie beyond
            those of the blocks of stride x stride pixels; 0 where not named. Unpadded poolings make
            them, and strides that begin at the first pixel.
        pool_selections: name -> what max pooling chose, for networks that unpool.
    """

    stages: Mapping[str, jax.Array]
    strides: Mapping[str, int]
    border: str = "same"
    shifts: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    pool_selections: Mapping[str, Selection] = dataclasses.field(default_factory=dict)

    def upsampling(self, coarse: str, fine: str | None = None) -> Resize:
        """How a stage comes to the grid of a finer one, or of the image: centre on centre.

        For `border` "same"; bilinear, clamped beyond the outermost centres.
        """
        nothing = (0.0, 0.0)
        stride, shift = 1, nothing
        if fine is not None:
            stride, shift = self.strides[fine], self.shifts.get(fine, nothing)
        moved = self.shifts.get(coarse, nothing)
        offset = tuple((a - b) / stride for a, b in zip(shift, moved, strict=True))
        return Resize("half_pixel", self.strides[coarse] // stride, offset)

    def between(self, coarse: str, fine: str, align: str) -> Resize:
        """How a stage comes to the grid of a finer one; `align` as for `to_image`."""
        choose("config.model.head.align", align, ALIGNMENTS)
        return self.upsampling(coarse, fine) if align == "centres" else Resize(align)

    def to_image(self, stage: str, align: str) -> Resize:
        """How scores of a stage come to the image.

        `align` is one of ALIGNMENTS: "centres" takes them from where their centres lie; with
        networks whose strides begin at the first pixel these are the corner-aligned zooms of their
        Caffe and TensorFlow releases, at every size. "corners" and "half_pixel" stretch the map
        over the image by that convention, as implementations do that do not ask where centres lie.
        """
        choose("config.model.head.align", align, ALIGNMENTS)
        return self.upsampling(stage) if align == "centres" else Resize(align)


@flax.struct.dataclass
class Scores:
    """Class scores at the head's own resolution, and how they come to the image.

    Attributes:
        values: [B, h, w, K], before softmax.
        resize: from these rows and columns to those of the network's input.
        overflow: of a CRF's (`values` are then of the image's pixels): int32 [B], the vertices that
            it would have needed where it had no room for an image, else 0.
    """

    values: jax.Array
    resize: Resize = flax.struct.field(pytree_node=False)
    overflow: jax.Array | None = None

    def wanted(self) -> dict[str, jax.Array]:
        """`crf_vertices_wanted` float32 []: the most that a CRF lacked, vertices a pixel; or {}."""
        if self.overflow is None:
            return {}
        pixels = math.prod(self.values.shape[1:3])
        return {"crf_vertices_wanted": jnp.max(self.overflow).astype(jnp.float32) / pixels}

    def sample(self, label: jax.Array) -> jax.Array:
        """The label of the pixel nearest to each score's place: [B, H, W] -> [B, h, w]."""
        rows, cols = (
            self.resize.centres(self.values.shape[axis], label.shape[axis], axis - 1)
            for axis in (1, 2)
        )
        return label[:, rows][:, :, cols]

    def matrices(
        self, size: tuple[int, int], seen: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """float32 ([H, h], [W, w]): from `values` to an image of `size`.

        `seen` is the size of the network's input where the image was resized before it; the two
        resizes are linear, so they become one matrix.
        """
        seen = seen or size
        up, back = self.resize.matrices(self.values.shape[1:3], seen), Resize("half_pixel")
        return tuple(
            matrix if net == image else back.matrix(net, image) @ matrix
            for matrix, net, image in zip(up, seen, size, strict=True)
        )
