"""Positions of the windows of a view along each axis, and the matrices that cut and paste them.

Two matrices, one for rows and one for columns, cut a window from the image: they resize, mirror and
frame it in one step. Two more paste its scores back: they resize and weight them. Blending is then
a plain sum over windows, in any order.
"""

import dataclasses
import functools
import math

import numpy as np

from segjax.arrays import Size
from segjax.evaluation.views import Views
from segjax.models.resize import Resize

Span = tuple[int, int]
"""(first, last + 1)."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """The windows of a view along one axis.

    Attributes:
        image: length of the image in pixels.
        view: length of the view (the image at a scale) in pixels.
        output: length of the output grid in pixels.
        tile: length of a window in pixels.
        stride: step from one window to the next in pixels.
        blend: see `Views`.
        resize: convention for resizing between image, view and output.
        mirrored: whether windows are mirrored.
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
        """The first pixel of each window in the view; negative if a small view is framed."""
        framed = max(self.view, self.tile)
        frame = (framed - self.view) // 2
        count = math.ceil((framed - self.tile) / self.stride) + 1
        return tuple(min(i * self.stride, framed - self.tile) - frame for i in range(count))

    def looks(self, index: int) -> Span:
        """The pixels of the image that a window is computed from."""
        position = self.resize.positions(self._inside(index), self.image, self.view)
        return int(position[0]), min(int(position[-1]) + 2, self.image)

    def cut(self, index: int, first: int, size: int) -> np.ndarray:
        """Matrix from image pixels first ... first + size - 1 to a window: float32 [tile, size].

        Rows in the window's frame are 0.
        """
        target, source = self._pixels(index), first + np.arange(size)
        matrix = self.resize.weights(target, source, self.image, self.view)
        matrix[(target < 0) | (target >= self.view)] = 0
        return matrix[::-1] if self.mirrored else matrix

    def reaches(self, index: int) -> Span:
        """The pixels of the output that a window contributes to."""
        inside = self._inside(index)
        position = self.resize.positions(np.arange(self.output), self.view, self.output)
        reached = np.flatnonzero((position > inside[0] - 1) & (position < inside[-1] + 1))
        # In a view far larger than the output, a window may fall between output pixels.
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
        """Weighted matrix from a window's scores to output pixels first ... first + size - 1.

        Args:
            index: index of the window.
            first, size: range of output pixels; those outside the output get 0.
            up: resize from scores to the network's input; None: scores have its size.
            grid: number of scores along the axis.
            through: (pixels, scores) of the view whose scores these are resized to first, or None.

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
        if up is not None and up.continues(self.resize) and self.tile == self.view:
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
        """A window's share of the total weight at each of its pixels; 0 in the frame."""
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
    """One scale of an image, possibly mirrored; windows are all pairs along the two axes.

    Attributes:
        rows, cols: the windows along each axis.
        through: size of the view whose scores these are resized to first, or None.
    """

    rows: Axis
    cols: Axis
    through: Size | None

    @property
    def tile(self) -> Size:
        """(height, width) of a window."""
        return self.rows.tile, self.cols.tile


@functools.lru_cache(maxsize=64)  # keeps the cached properties of the axes too
def of_image(chosen: Views, image: Size, seen: Size) -> tuple[View, ...]:
    """The views of an image.

    Args:
        chosen: the views and their fusion.
        image: size of the image.
        seen: size at which the network was trained to see the image.
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
