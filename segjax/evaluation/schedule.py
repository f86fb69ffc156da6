"""The order in which a network sees the windows of a batch, and where their scores are pasted."""

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
"""Sides of windows and strips are multiples of it, so that images of many sizes share programs."""


@dataclasses.dataclass
class Part:
    """Windows that the network sees together.

    Attributes:
        windows: for each window the row of the batch, then the axis and the number of its rows, and
            those of its columns.
        index: the view of the first window; of all windows, where views must not mix.
        view: that view.
        span: rows of the output that the windows reach.
        scores: of the network, while they are needed.
    """

    windows: list[tuple[int, window_grid.Axis, int, window_grid.Axis, int]]
    index: int
    view: window_grid.View
    span: window_grid.Span
    scores: Scores | None = None


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much is worked on at once.

    Attributes:
        windows: N, that the network sees together.
        strip_bytes: of fused scores on a device, about.
        num_classes: K.
    """

    windows: int
    strip_bytes: int
    num_classes: int


class Work:
    """The windows of one batch, in parts, from the top of the images down.

    Args:
        views: of every image.
        batch: see `data.pipeline`; all images of one size where the views have windows.
        seen: the size at which the network was trained to see an image of this canvas.
        limits: of windows and strips.

    Attributes:
        count: views of an image.
        size: (H', W') of the output.
        strip: rows of the output that are held at once.
        width: W', rounded up.
        parts: of the windows.
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
        """Windows from the top down, as many as the network sees at once."""
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
        """The parts that reach the strip of rows from `first` on."""
        return [p for p in self.parts if p.span[0] < first + self.strip and p.span[1] > first]

    def labels(self, first: int) -> np.ndarray:
        """The truth of a strip, on the grid of the scores: uint8 [B, strip, width]."""
        label = self.batch["label"]
        rows = np.arange(first, min(first + self.strip, self.size[0]))
        strip = np.full((label.shape[0], self.strip, self.width), VOID, np.uint8)
        picked = label[:, nearest(self.size[0], label.shape[1])[rows]]
        picked = picked[:, :, nearest(self.size[1], label.shape[2])]
        counted = (self.batch["weight"] > 0)[:, None, None]
        strip[:, : len(rows), : self.size[1]] = np.where(counted, picked, VOID)
        return strip

    def windows(self, part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """uint8 [N, wh, ww, 3], and the matrices [N, th, wh] and [N, tw, ww] that cut them."""
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
        """What pastes a part into the strip from row `first` on.

        Args:
            part: its windows.
            scores: of these windows.
            first: row of the output.
            through: for rows and for columns, see `Axis.paste`.

        Returns:
            For every window matrices [N, oh, g] and [N, ow, g] and int32 [N, 3] of (row of the
            batch, y, x); and the two matrices from scores to windows, or (None, None).
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
        """Zeros float32 [N, rows, cols] for rows and for columns; the rest stays zero."""
        count = self._limits.windows
        down, across = (
            np.zeros((count, *shape), np.float32) for shape in zip(rows, cols, strict=True)
        )
        return down, across


def _shape(spans: list[tuple[window_grid.Span, window_grid.Span]], limits: Sequence[int]) -> Size:
    """Height and width that every span fits into, rounded up, no more than the limits."""
    longest = (max(span[k][1] - span[k][0] for span in spans) for k in (0, 1))
    height, width = (min(round_up(n), limit) for n, limit in zip(longest, limits, strict=True))
    return height, width


def _origin(first: int, size: int, limit: int) -> int:
    """Where a piece begins that must lie inside of the limit."""
    return max(0, min(first, limit - size))


def nearest(wanted: int, given: int) -> np.ndarray:
    """int [wanted]: the pixel of `given` in which the centre of each wanted one lies."""
    return np.minimum((np.arange(wanted) + 0.5) * given / wanted, given - 1).astype(np.int64)


def round_up(n: int) -> int:
    """The next multiple of GRAIN."""
    return -(-n // GRAIN) * GRAIN
