"""Schedule of the windows of a batch: their order, and the places where scores are pasted."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from segjax import arrays
from segjax.arrays import Size
from segjax.data.spec import VOID
from segjax.evaluation import window_grid
from segjax.evaluation.views import Views
from segjax.models.features import Scores

GRAIN = 64
"""Sides of windows and strips are multiples of this, so that image sizes share programs."""


@dataclasses.dataclass
class Part:
    """Windows that go through the network together.

    Attributes:
        windows: for each window the row of the batch, the axis and the window's index down the
            image, and the axis and the window's index across.
        index: index of the view of the first window; all windows have it unless views may mix.
        view: that view.
        span: output rows covered by the windows.
        scores: scores of the windows, while they are needed.
    """

    windows: list[tuple[int, window_grid.Axis, int, window_grid.Axis, int]]
    index: int
    view: window_grid.View
    span: window_grid.Span
    scores: Scores | None = None


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on the work done at once.

    Attributes:
        windows: N, windows per network batch.
        strip_bytes: approximate bytes of fused scores per device.
        num_classes: K.
    """

    windows: int
    strip_bytes: int
    num_classes: int


class Work:
    """The windows of one batch in parts, from the top of the images to the bottom.

    Args:
        views: views of every image.
        batch: see `data.pipeline`; with windows, all images have the same size.
        seen: size at which the network was trained to see an image of this canvas.
        limits: limits on windows and strips.

    Attributes:
        count: number of views of an image.
        size: (H', W') of the output.
        strip: output rows held at once.
        width: W' rounded up to a multiple of GRAIN.
        parts: the windows in parts.
    """

    def __init__(self, views: Views, batch: dict[str, np.ndarray], seen: Size, limits: Limits):
        self._protocol, self._limits = views, limits
        self.batch, self.image = batch, batch["image"]
        self._views = window_grid.of_image(views, self.image.shape[1:3], seen)
        self.count = len(self._views)
        self.size = self._views[0].rows.output, self._views[0].cols.output
        self.width = round_up(self.size[1])
        pixel = 4 * limits.num_classes * self.image.shape[0] * (1 if views.linear else 2)
        affordable = max(1, limits.strip_bytes // (pixel * self.width) // GRAIN) * GRAIN
        self.strip = min(round_up(self.size[0]), affordable)
        self.parts = list(self._parts())

    def _parts(self) -> Iterator[Part]:
        """Parts from the top down, each with up to `limits.windows` windows."""
        jobs = [
            (view.rows.reaches(down), index, row, down, across)
            for index, view in enumerate(self._views)
            for row in np.flatnonzero(self.batch["weight"]).tolist()
            for down in range(len(view.rows.starts))
            for across in range(len(view.cols.starts))
        ]
        jobs = [job for job in jobs if job[0][1] > job[0][0]]
        apart = not self._protocol.linear or not any(self._protocol.tile)
        jobs.sort(key=lambda job: (job[1] if apart else 0, job[0][0], job[1:]))
        while jobs:
            index = jobs[0][1]
            part = [j for j in jobs[: self._limits.windows] if not apart or j[1] == index]
            jobs = jobs[len(part) :]
            span = min(job[0][0] for job in part), max(job[0][1] for job in part)
            windows = [
                (row, self._views[v].rows, down, self._views[v].cols, across)
                for _, v, row, down, across in part
            ]
            yield Part(windows, index, self._views[index], span)

    def parts_at(self, first: int) -> list[Part]:
        """The parts that overlap the strip starting at row `first`."""
        return [p for p in self.parts if p.span[0] < first + self.strip and p.span[1] > first]

    def labels(self, first: int) -> np.ndarray:
        """True labels of a strip on the grid of the scores: uint8 [B, strip, width]."""
        label = self.batch["label"]
        rows = np.arange(first, min(first + self.strip, self.size[0]))
        strip = np.full((label.shape[0], self.strip, self.width), VOID, np.uint8)
        picked = label[:, nearest(self.size[0], label.shape[1])[rows]]
        picked = picked[:, :, nearest(self.size[1], label.shape[2])]
        counted = (self.batch["weight"] > 0)[:, None, None]
        strip[:, : len(rows), : self.size[1]] = np.where(counted, picked, VOID)
        return strip

    def windows(self, part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels uint8 [N, wh, ww, 3], and cut matrices [N, th, wh] and [N, tw, ww]."""
        spans = [(rows.looks(i), cols.looks(j)) for _, rows, i, cols, j in part.windows]
        canvas = self.image.shape[1:3]
        shape = _shape(spans, [round_up(length) for length in canvas])
        pixels = np.zeros((self._limits.windows, *shape, 3), np.uint8)
        cut = self._matrices(part.view.tile, shape)
        for n, ((row, rows, i, cols, j), span) in enumerate(zip(part.windows, spans, strict=True)):
            y, x = (_origin(span[k][0], shape[k], canvas[k]) for k in (0, 1))
            seen = self.image[row, y : y + shape[0], x : x + shape[1]]
            pixels[n, : seen.shape[0], : seen.shape[1]] = seen
            cut[0][n], cut[1][n] = rows.cut(i, y, shape[0]), cols.cut(j, x, shape[1])
        return pixels, *cut

    def geometry(
        self, part: Part, scores: Scores, first: int, through: Sequence[tuple[int, int] | None]
    ) -> tuple:
        """The matrices and positions that paste a part into the strip starting at row `first`.

        Args:
            part: the part.
            scores: scores of its windows.
            first: first output row of the strip.
            through: for rows and for columns, see `Axis.paste`.

        Returns:
            Paste matrices [N, oh, g] and [N, ow, g] and int32 [N, 3], (row of the batch, y, x), of
            every window; and two matrices that resize scores to windows, or (None, None).
        """
        grid, at_input = arrays.map_size(scores.values), self._protocol.softmax_at_input
        spans = [(rows.reaches(i), cols.reaches(j)) for _, rows, i, cols, j in part.windows]
        shape = _shape(spans, (self.strip, self.width))
        paste = self._matrices(shape, part.view.tile if at_input else grid)
        at = np.zeros((self._limits.windows, 3), np.int32)
        up = None if at_input else scores.resize
        share = 1 / self.count if self._protocol.linear else 1.0
        placed = zip(part.windows, spans, strict=True)
        for n, ((row, rows, i, cols, j), span) in enumerate(placed):
            y = _origin(span[0][0] - first, shape[0], self.strip)
            x = _origin(span[1][0], shape[1], self.width)
            at[n] = row, y, x
            down = rows.paste(i, first + y, shape[0], up=up, grid=grid[0], through=through[0])
            across = cols.paste(j, x, shape[1], up=up, grid=grid[1], through=through[1])
            paste[0][n], paste[1][n] = share * down, across
        lift = scores.resize.matrices(grid, part.view.tile) if at_input else (None, None)
        return (*paste, at), lift

    def _matrices(self, rows: Size, cols: Size) -> tuple[np.ndarray, np.ndarray]:
        """Zeros float32 [N, rows, cols] for the two axes; unused windows stay zero."""
        count = self._limits.windows
        down, across = (
            np.zeros((count, *shape), np.float32) for shape in zip(rows, cols, strict=True)
        )
        return down, across


def _shape(spans: list[tuple[window_grid.Span, window_grid.Span]], limits: Sequence[int]) -> Size:
    """The height and width of the largest spans, rounded up but within the limits."""
    longest = (max(span[k][1] - span[k][0] for span in spans) for k in (0, 1))
    height, width = (min(round_up(n), limit) for n, limit in zip(longest, limits, strict=True))
    return height, width


def _origin(first: int, size: int, limit: int) -> int:
    """The start of a piece of `size`, near `first` and moved inside `limit`."""
    return max(0, min(first, limit - size))


def nearest(size: int, source: int) -> np.ndarray:
    """The nearest of `source` pixels for each of `size` pixels: int64 [size]."""
    return np.minimum((np.arange(size) + 0.5) * source / size, source - 1).astype(np.int64)


def round_up(n: int) -> int:
    """The next multiple of GRAIN."""
    return arrays.round_up(n, GRAIN)
