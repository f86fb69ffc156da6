"""What flows between the parts of a model: `Features` into a head, `Scores` out of it."""

import dataclasses
from collections.abc import Mapping

import flax.struct
import jax
import numpy as np

from segjax.models.resize import Resize


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
        shifts: name -> image pixels by which the centres of features lie beyond those of the
            blocks of stride x stride pixels; 0 where not named. Unpadded poolings make them.
        pool_selections: name -> what max pooling chose, for networks that unpool.
    """

    stages: Mapping[str, jax.Array]
    strides: Mapping[str, int]
    border: str = "same"
    shifts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    pool_selections: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)

    def upsampling(self, coarse: str, fine: str | None = None) -> Resize:
        """How a stage comes to the grid of a finer one, or of the image: centre on centre.

        For `border` "same"; bilinear, clamped beyond the outermost centres.
        """
        stride = 1 if fine is None else self.strides[fine]
        shift = 0.0 if fine is None else self.shifts.get(fine, 0.0)
        offset = (shift - self.shifts.get(coarse, 0.0)) / stride
        return Resize("half_pixel", self.strides[coarse] // stride, offset)


@flax.struct.dataclass
class Scores:
    """Class scores at the head's own resolution, and how they come to the image.

    Attributes:
        values: [B, h, w, K], before softmax.
        resize: from these rows and columns to those of the network's input.
    """

    values: jax.Array
    resize: Resize = flax.struct.field(pytree_node=False)

    def matrices(
        self, size: tuple[int, int], seen: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """float32 ([H, h], [W, w]): from `values` to an image of `size`.

        `seen` is the size of the network's input where the image was resized before it; the two
        resizes are linear, so they become one matrix.
        """
        found = []
        for axis, (image, net) in enumerate(zip(size, seen or size, strict=True)):
            matrix = self.resize.matrix(self.values.shape[1 + axis], net)
            if net != image:
                matrix = Resize("half_pixel").matrix(net, image) @ matrix
            found.append(matrix)
        return found[0], found[1]
