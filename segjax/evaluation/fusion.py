"""A network on many views of an image, their scores fused in strips of rows.

Whatever the protocol, the work is the same: windows are cut, the network sees them a batch at a
time, and what it says is pasted where it belongs (see `views`). Windows of a batch lie on
different devices, and each device adds up its own; the sums meet when a strip is done. A strip
is all that is ever held at the size of the image, with K scores a pixel.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from segjax.data.spec import VOID
from segjax.evaluation import window_grid
from segjax.evaluation.protocol import Protocol, Size
from segjax.models import crf_rnn
from segjax.models.features import Scores

STRIP_BYTES = 2**28
"""What a device holds of the fused scores, about."""

_GRAIN = 64
"""Windows and strips are rounded up to it, so that images of many sizes share programs."""


@dataclasses.dataclass
class Part:
    """Windows that the network sees together.

    Attributes:
        windows: of each the row of the batch, then axis and place of its rows, and of its columns.
        index: of the view of the first; of all, where views must not mix.
        view: that view.
        span: output rows that they reach.
        scores: what the network said, while it is needed.
    """

    windows: list[tuple[int, window_grid.Axis, int, window_grid.Axis, int]]
    index: int
    view: window_grid.View
    span: window_grid.Span
    scores: Scores | None = None


class MultiView:
    """Labels batches under a protocol of several views.

    Args:
        network: (params, batch_stats, float32 [N, h, w, 3] in 0 to 255) -> Scores.
        judge: (logits [B, r, W, K], label [B, r, W]) -> dict; `prediction` uint8 [B, r, W], the
            rest are counts that add up.
        protocol: the views and their fusion.
        seen: an image's size -> what the network was trained to see of it.
        mean: RGB around images that are smaller than a window.
        num_classes: K.
        refine: None, or (image, logits [B, H, W, K], label, size) -> what `judge` gives and more,
            see `steps.refined`; of the whole image, whose scores are then held.
        batch_size: windows that this process's devices see at once, rounded up to their number.
        devices: of this process.
        strip_bytes: of fused scores on a device.

    Attributes:
        programs: what was compiled: (name, shapes of its arguments).
        at_input: whether probabilities are made at the size that the network saw.
        split: how windows lie on the devices, and each device's part of the fused scores.
    """

    def __init__(
        self,
        network: Callable[[Any, Any, jax.Array], Scores],
        judge: Callable[[jax.Array, jax.Array], dict[str, jax.Array]],
        protocol: Protocol,
        *,
        seen: Callable[[Size], Size],
        mean: tuple[float, float, float],
        num_classes: int,
        batch_size: int,
        devices: list[jax.Device],
        refine: Callable[..., dict[str, jax.Array]] | None = None,
        strip_bytes: int = STRIP_BYTES,
    ):
        self.protocol, self.num_classes = protocol, num_classes
        self.programs: set = set()
        self._grids: dict[Size, Size] = {}
        self.seen, self.strip_bytes, self.refine = seen, strip_bytes, refine
        mesh = jax.make_mesh((len(devices),), ("tile",), (AxisType.Auto,), devices=devices)
        self.split, self._whole = NamedSharding(mesh, P("tile")), NamedSharding(mesh, P())
        self.batch_size = -(-batch_size // len(devices)) * len(devices)
        self.at_input = protocol.softmax == "before_resize" and "logit" not in protocol.fusion
        self._network = jax.jit(network)
        self._cut = jax.jit(functools.partial(_cut, mean=mean))
        paste = functools.partial(_paste, softmax=self.at_input)
        self._paste = jax.jit(
            jax.shard_map(
                paste, mesh=mesh, in_specs=(P("tile"),) * 5 + (P(), P()), out_specs=P("tile")
            ),
            donate_argnums=0,
        )
        self._fuse = jax.jit(functools.partial(_fuse, protocol=protocol), donate_argnums=0)
        self._judge = jax.jit(functools.partial(_judge, judge=judge, protocol=protocol))
        self._logits = jax.jit(functools.partial(_logits, protocol=protocol))

    def weights(self, params: Any, batch_stats: Any) -> tuple[Any, Any]:
        """The weights on this process's devices, for `__call__`."""
        return jax.tree.map(
            lambda x: jax.device_put(x.addressable_data(0), self._whole), (params, batch_stats)
        )

    def __call__(self, weights: tuple[Any, Any], batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Labels this process's rows of a batch.

        Args:
            weights: of `weights`.
            batch: see `data.pipeline`; all images of one size where the protocol has windows.

        Returns:
            `prediction` uint8 [B, H', W'], on the grid of `protocol.argmax`, and the counts; with
            `refine`, all that it gives.
        """
        work = _Work(self, batch)
        if self.refine is not None:
            return self._refined(work, weights)
        predictions, counts = [], None
        for first in range(0, work.size[0], work.strip):
            scores = self._strip(work, weights, first)
            found = self._call("judge", self._judge, scores, work.labels(first))
            predictions.append(np.asarray(found.pop("prediction")))
            found = jax.tree.map(np.asarray, found)
            counts = found if counts is None else jax.tree.map(np.add, counts, found)
        prediction = np.concatenate(predictions, axis=1)[:, : work.size[0], : work.size[1]]
        return {"prediction": prediction} | counts

    def _refined(self, work: "_Work", weights: tuple[Any, Any]) -> dict[str, Any]:
        strips = [
            self._call("logits", self._logits, self._strip(work, weights, first))
            for first in range(0, work.size[0], work.strip)
        ]
        logits = jnp.concatenate(strips, axis=1)[:, : work.size[0], : work.size[1]]
        batch = work.batch
        label = np.where(batch["weight"][:, None, None] > 0, batch["label"], np.uint8(VOID))
        found = self.refine(batch["image"], logits, label, batch["size"])
        return jax.tree.map(np.asarray, found)

    def scores(self, weights: tuple[Any, Any], batch: dict[str, np.ndarray]) -> np.ndarray:
        """The fused scores themselves: float32 [B, H', W', K]."""
        work = _Work(self, batch)
        strips = [
            np.asarray(self._strip(work, weights, first).sum(0))
            for first in range(0, work.size[0], work.strip)
        ]
        return np.concatenate(strips, axis=1)[:, : work.size[0], : work.size[1]]

    def _strip(self, work: "_Work", weights: tuple[Any, Any], first: int) -> jax.Array:
        """The fused scores of a strip, still to be summed over devices."""
        fused = work.empty(-np.inf if "max" in self.protocol.fusion else 0.0)
        if self.protocol.linear:
            for part in work.parts_at(first):
                fused = self._add(fused, work, part, weights, first)
            return fused
        for view in range(work.count):
            total = work.empty(0.0)
            for part in work.parts_at(first):
                if part.index == view:
                    total = self._add(total, work, part, weights, first)
            fused = self._call("fuse", self._fuse, fused, total, work.count)
        return fused

    def _add(self, total: jax.Array, work: "_Work", part: Part, weights, first: int) -> jax.Array:
        """Pastes a part's scores into a strip; asks the network first where it was not asked."""
        if part.scores is None:
            windows = jax.device_put(work.windows(part), self.split)
            tiles = self._call("cut", self._cut, *windows)
            part.scores = self._call("network", self._network, *weights, tiles)
            for wanted in part.scores.wanted().values():
                crf_rnn.check(float(wanted))
        geometry, up = work.geometry(part, first, self._through(part, weights))
        geometry = jax.device_put(geometry, self.split)
        total = self._call("paste", self._paste, total, part.scores.values, *geometry, *up)
        if part.span[1] <= first + work.strip:
            part.scores = None
        return total

    def _through(self, part: Part, weights) -> list | tuple:
        """For rows and for columns, `through` of `Axis.paste`."""
        size = part.view.through
        if size is None:
            return None, None
        if size not in self._grids:
            image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
            self._grids[size] = jax.eval_shape(self._network, *weights, image).values.shape[1:3]
        return list(zip(size, self._grids[size], strict=True))

    def _call(self, kind: str, fn: Callable, *args) -> Any:
        self.programs.add((kind, *(np.shape(x) for x in jax.tree.leaves(args))))
        return fn(*args)


class _Work:
    """What is to be done for a batch: its windows, in parts, from the top down."""

    def __init__(self, how: MultiView, batch: dict[str, np.ndarray]):
        self.how, self.batch = how, batch
        self.image = batch["image"]
        canvas = self.image.shape[1:3]
        self.views = window_grid.of_image(how.protocol, canvas, how.seen(canvas))
        self.count = len(self.views)
        self.size = self.views[0].rows.output, self.views[0].cols.output
        self.width = _round_up(self.size[1])
        pixel = 4 * how.num_classes * self.image.shape[0] * (1 if how.protocol.linear else 2)
        affordable = max(1, how.strip_bytes // (pixel * self.width) // _GRAIN) * _GRAIN
        self.strip = min(_round_up(self.size[0]), affordable)
        self.parts = list(self._parts())

    def _parts(self) -> Iterator[Part]:
        """Windows from the top down, as many as the network sees at once."""
        jobs = [
            (view.rows.reaches(down), index, row, down, across)
            for index, view in enumerate(self.views)
            for row in np.flatnonzero(self.batch["weight"])
            for down in range(len(view.rows.starts))
            for across in range(len(view.cols.starts))
        ]
        jobs = [job for job in jobs if job[0][1] > job[0][0]]
        apart = not self.how.protocol.linear or not any(self.how.protocol.tile)
        jobs.sort(key=lambda job: (job[1] if apart else 0, job[0][0], job[1:]))
        while jobs:
            index = jobs[0][1]
            part = [j for j in jobs[: self.how.batch_size] if not apart or j[1] == index]
            jobs = jobs[len(part) :]
            span = min(job[0][0] for job in part), max(job[0][1] for job in part)
            windows = [
                (row, self.views[v].rows, down, self.views[v].cols, across)
                for _, v, row, down, across in part
            ]
            yield Part(windows, index, self.views[index], span)

    def parts_at(self, first: int) -> list[Part]:
        """Those that reach the strip."""
        return [p for p in self.parts if p.span[0] < first + self.strip and p.span[1] > first]

    def empty(self, value: float) -> jax.Array:
        """float32 [devices, B, strip, width, K], each device's part of a sum."""
        shape = (
            self.how.split.mesh.size,
            self.image.shape[0],
            self.strip,
            self.width,
            self.how.num_classes,
        )
        return jnp.full(shape, value, jnp.float32, device=self.how.split)

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
        shape = _shape(spans, [_round_up(length) for length in canvas])
        pixels = np.zeros((self.how.batch_size, *shape, 3), np.uint8)
        cut = self._matrices(part.view.tile, shape)
        for n, ((row, rows, i, cols, j), span) in enumerate(zip(part.windows, spans, strict=True)):
            y, x = (_origin(span[k][0], shape[k], canvas[k]) for k in (0, 1))
            seen = self.image[row, y : y + shape[0], x : x + shape[1]]
            pixels[n, : seen.shape[0], : seen.shape[1]] = seen
            cut[0][n], cut[1][n] = rows.cut(i, y, shape[0]), cols.cut(j, x, shape[1])
        return pixels, *cut

    def geometry(self, part: Part, first: int, through):
        """What pastes a part into a strip.

        Returns:
            matrices [N, oh, g] and [N, ow, g] and int32 [N, 3] of (row of the batch, y, x), by
            window; and the matrices from scores to windows, or twice None.
        """
        scores, at_input = part.scores, self.how.at_input
        grid = scores.values.shape[1:3]
        spans = [(rows.reaches(i), cols.reaches(j)) for _, rows, i, cols, j in part.windows]
        shape = _shape(spans, (self.strip, self.width))
        paste = self._matrices(shape, part.view.tile if at_input else grid)
        at = np.zeros((self.how.batch_size, 3), np.int32)
        up = None if at_input else scores.resize
        share = 1 / self.count if self.how.protocol.linear else 1.0
        for n, ((row, rows, i, cols, j), span) in enumerate(zip(part.windows, spans, strict=True)):
            y = _origin(span[0][0] - first, shape[0], self.strip)
            x = _origin(span[1][0], shape[1], self.width)
            at[n] = row, y, x
            how = [{"up": up, "grid": grid[k], "through": through[k]} for k in (0, 1)]
            paste[0][n] = share * rows.paste(i, first + y, shape[0], **how[0])
            paste[1][n] = cols.paste(j, x, shape[1], **how[1])
        up = scores.resize.matrices(grid, part.view.tile) if at_input else (None, None)
        return (*paste, at), up

    def _matrices(self, rows: Size, cols: Size) -> list[np.ndarray]:
        """Empty float32 [N, rows, cols], for rows and for columns; those of no window stay so."""
        shapes = zip(rows, cols, strict=True)
        return [np.zeros((self.how.batch_size, *shape), np.float32) for shape in shapes]


def _shape(
    spans: list[tuple[window_grid.Span, window_grid.Span]], limits: Sequence[int]
) -> list[int]:
    """Height and width that every span fits into, rounded up, no more than the limits."""
    longest = (max(span[k][1] - span[k][0] for span in spans) for k in (0, 1))
    return [min(_round_up(n), limit) for n, limit in zip(longest, limits, strict=True)]


def _origin(first: int, size: int, limit: int) -> int:
    """Where a piece begins that must lie inside."""
    return max(0, min(first, limit - size))


def nearest(wanted: int, given: int) -> np.ndarray:
    """int [wanted]: the pixel of `given` in which the centre of each wanted one lies."""
    return np.minimum((np.arange(wanted) + 0.5) * given / wanted, given - 1).astype(np.int64)


def _cut(windows: jax.Array, rows: jax.Array, cols: jax.Array, *, mean) -> jax.Array:
    """[N, wh, ww, 3], [N, th, wh], [N, tw, ww] -> float32 [N, th, tw, 3], the frame in `mean`."""
    x = jnp.einsum("nth,nhwc->ntwc", rows, windows.astype(jnp.float32), precision="highest")
    x = jnp.einsum("nuw,ntwc->ntuc", cols, x, precision="highest")
    inside = (rows.sum(2) > 0.5)[:, :, None, None] & (cols.sum(2) > 0.5)[:, None, :, None]
    return jnp.where(inside, x, jnp.asarray(mean, jnp.float32))


def _paste(total, values, rows, cols, at, up_rows, up_cols, *, softmax: bool) -> jax.Array:
    """Adds a device's windows to its part of the sum, one after the other.

    Args:
        total: float32 [1, B, strip, width, K].
        values: [n, h, w, K], scores.
        rows, cols: [n, oh, g], [n, ow, g].
        at: int32 [n, 3].
        up_rows, up_cols: to the size of the window, where probabilities are made there.
        softmax: whether they are.
    """

    def add(total, window):
        values, rows, cols, at = window
        values = values.astype(jnp.float32)
        if softmax:
            values = jax.nn.softmax(_spread(values, up_rows, up_cols), axis=-1)
        patch = _spread(values, rows, cols)[None, None]
        corner = (0, *at, 0)
        old = jax.lax.dynamic_slice(total, corner, patch.shape)
        return jax.lax.dynamic_update_slice(total, old + patch, corner), None

    return jax.lax.scan(add, total, (values, rows, cols, at))[0]


def _spread(values: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """[h, w, K], [H, h], [W, w] -> [H, W, K]; the columns first, while there are few rows."""
    x = jnp.einsum("Ww,hwk->hWk", cols, values, precision="highest")
    return jnp.einsum("Hh,hWk->HWk", rows, x, precision="highest")


def _fuse(fused: jax.Array, view: jax.Array, views: int, *, protocol: Protocol) -> jax.Array:
    """Takes a view's scores into those of the views before it."""
    view = view.sum(0, keepdims=True)
    if "probability" in protocol.fusion and protocol.softmax == "after_resize":
        view = jax.nn.softmax(view, axis=-1)
    # The first device holds the result; what the others hold must not change the sum.
    first = jnp.arange(fused.shape[0])[:, None, None, None, None] == 0
    if "max" in protocol.fusion:
        return jnp.where(first, jnp.maximum(fused, view), 0)
    return jnp.where(first, fused + view / views, 0)


def _judge(scores: jax.Array, label: jax.Array, *, judge: Callable, protocol: Protocol):
    return judge(_logits(scores, protocol=protocol), label)


def _logits(scores: jax.Array, *, protocol: Protocol) -> jax.Array:
    """Of the fused scores: [devices, B, r, W, K] -> [B, r, W, K]."""
    scores = scores.sum(0)
    if "probability" in protocol.fusion:
        # Softmax of the logarithm gives them back; where nothing was pasted, nothing is labelled.
        return jnp.log(jnp.maximum(scores, jnp.finfo(jnp.float32).tiny))
    return scores


def _round_up(n: int) -> int:
    return -(-n // _GRAIN) * _GRAIN
