"""Where the windows of a view lie, axis by axis, and the matrices that cut and paste them.

A window is cut from the image by two matrices, one for its rows and one for its columns, which
resize, mirror and frame it at once; its scores come back by two more, which resize and weigh them.
Sums over windows are then all there is to blending, on the device and in any order.
"""

import dataclasses
import functools
import math

import numpy as np

from segjax.arrays import Size
from segjax.evaluation.views import Views
from segjax.models.resize import Resize

Span = tuple[int, int]
"""The first, and one beyond the last."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """The windows of a view along one axis.

    Attributes:
        image: pixels of the image.
        view: pixels of the view, which is the image at a scale.
        output: pixels of the grid that scores come to.
        tile: pixels of a window.
        stride: from one window to the next.
        blend: see `Views`.
        resize: between image, view and output.
        mirrored: whether windows are reversed.
    """

    image: int
    view: int
    output: int
    tile: int
    stride: int
    blend: str
    resize: Resize
    mirrored: bool

    @functools.cached_property
    def starts(self) -> tuple[int, ...]:
        """Where the windows begin, in pixels of the view; the frame of a small one lies below 0."""
        framed = max(self.view, self.tile)
        frame = (framed - self.view) // 2
        count = math.ceil((framed - self.tile) / self.stride) + 1
        return tuple(min(i * self.stride, framed - self.tile) - frame for i in range(count))

    def looks(self, index: int) -> Span:
        """The image's pixels that a window is made of."""
        position = self.resize.positions(self._inside(index), self.image, self.view)
        return int(position[0]), min(int(position[-1]) + 2, self.image)

    def cut(self, index: int, first: int, size: int) -> np.ndarray:
        """float32 [tile, size]: pixels first ... first + size - 1 to a window; 0 in its frame."""
        target, source = self._pixels(index), first + np.arange(size)
        matrix = self.resize.weights(target, source, self.image, self.view)
        matrix[(target < 0) | (target >= self.view)] = 0
        return matrix[::-1] if self.mirrored else matrix

    def reaches(self, index: int) -> Span:
        """The output's pixels that a window adds to."""
        inside = self._inside(index)
        position = self.resize.positions(np.arange(self.output), self.view, self.output)
        reached = np.flatnonzero((position > inside[0] - 1) & (position < inside[-1] + 1))
        # A view far larger than the output may have windows that fall between its pixels.
        return (int(reached[0]), int(reached[-1]) + 1) if len(reached) else (0, 0)

    def paste(
        self,
        index: int,
        first: int,
        size: int,
        *,
        up: Resize | None = None,
        grid: int = 0,
        through: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Scores of a window to output pixels first ... first + size - 1, weighed.

        Args:
            index: of the window.
            first, size: of the output; pixels beyond it get nothing.
            up: how the network's scores come to its input; None: they are there.
            grid: how many scores there are.
            through: pixels and scores of a view that these come to first.

        Returns:
            float32 [size, grid], or [size, tile] without `up`.
        """
        if through is not None:
            length, scores = through
            other = dataclasses.replace(self, view=length, tile=length)
            onward = other.paste(index, first, size, up=up, grid=scores)
            product: np.ndarray = onward @ self.resize.matrix(grid, scores)
            return product
        target = first + np.arange(size)
        stretched = up is not None and up.factor is None and up.offset == 0
        alike = up is not None and up.convention == self.resize.convention
        if stretched and alike and self.tile == self.view:
            # Two stretches by one convention are one.
            matrix = self.resize.weights(target, np.arange(grid), grid, self.output)
            matrix = matrix[:, ::-1] if self.mirrored else matrix
        else:
            pixels = self._pixels(index)
            matrix = self.resize.weights(target, pixels, self.view, self.output)
            matrix = matrix * self._share(pixels)
            matrix = matrix[:, ::-1] if self.mirrored else matrix
            matrix = matrix if up is None else matrix @ up.matrix(grid, self.tile)
        return matrix * ((target >= 0) & (target < self.output))[:, None].astype(np.float32)

    def _pixels(self, index: int) -> np.ndarray:
        return self.starts[index] + np.arange(self.tile)

    def _inside(self, index: int) -> np.ndarray:
        pixels = self._pixels(index)
        return pixels[(pixels >= 0) & (pixels < self.view)]

    def _share(self, pixels: np.ndarray) -> np.ndarray:
        """A window's part of the sum over all windows at each of its pixels; 0 in the frame."""
        inside = (pixels >= 0) & (pixels < self.view)
        total = self._total[np.clip(pixels, 0, self.view - 1)]
        return np.where(inside, self._weight / total, 0).astype(np.float32)

    @functools.cached_property
    def _weight(self) -> np.ndarray:
        if self.blend == "uniform":
            return np.ones(self.tile)
        return np.sin(np.pi * (np.arange(self.tile) + 0.5) / self.tile) ** 2

    @functools.cached_property
    def _total(self) -> np.ndarray:
        total = np.zeros(self.view)
        for index in range(len(self.starts)):
            inside = self._inside(index)
            total[inside] += self._weight[inside - self.starts[index]]
        return total


@dataclasses.dataclass(frozen=True)
class View:
    """One scale of an image, as it is or mirrored: its windows are all pairs of rows and columns.

    Attributes:
        rows, cols: down and across.
        through: size of the view whose scores these come to first, or None.
    """

    rows: Axis
    cols: Axis
    through: Size | None

    @property
    def tile(self) -> Size:
        """What the network sees at once."""
        return self.rows.tile, self.cols.tile


@functools.lru_cache(maxsize=64)  # with them what their axes have worked out
def of_image(chosen: Views, image: Size, seen: Size) -> tuple[View, ...]:
    """The views of an image.

    Args:
        chosen: the views and their fusion.
        image: its size.
        seen: what the network was trained to see of it.
    """
    one = chosen.scaled(1.0, image, seen)
    output = image if chosen.argmax == "image" else one
    views = []
    for scale in chosen.scales:
        size = chosen.scaled(scale, image, seen)
        for mirrored in (False, True)[: 1 + chosen.flip]:
            rows, cols = (
                Axis(
                    image=image[axis],
                    view=size[axis],
                    output=output[axis],
                    tile=chosen.tile[axis] or size[axis],
                    stride=math.ceil((chosen.tile[axis] or size[axis]) * chosen.stride),
                    blend=chosen.blend,
                    resize=Resize(chosen.resize),
                    mirrored=mirrored and axis == 1,
                )
                for axis in (0, 1)
            )
            through = one if chosen.meet == "scale_1" and scale < 1 else None
            views.append(View(rows, cols, through))
    return tuple(views)
