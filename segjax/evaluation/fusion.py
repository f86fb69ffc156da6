"""Multi-view evaluation: a network on many views of an image, their scores fused strip by strip.

Windows are cut from the image, the network scores them in batches, and the scores are pasted back
(see `window_grid` and `schedule`). The windows of a batch are split over the devices, and each over
`space` of them (see `segjax.strips`); a device sums the scores of its windows, and the sums are
added when a strip of rows is done. Only one strip is held at full resolution with K scores per
pixel.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from segjax import arrays, sharding, strips
from segjax.arrays import Size
from segjax.data.spec import VOID
from segjax.evaluation.schedule import Limits, Part, Work
from segjax.evaluation.steps import Judge
from segjax.evaluation.views import Views
from segjax.metrics.metric import wide
from segjax.models import crf_rnn
from segjax.models.features import Scores
from segjax.network import Model, Network

STRIP_BYTES = 2**28
"""Approximate bytes of fused scores per device."""


Refine = Callable[[np.ndarray, jax.Array, np.ndarray, np.ndarray], dict[str, Any]]
"""(image, logits, label, size) of a batch -> result of `steps.RefinedJudge`."""


class MultiView:
    """Labels batches with several views of every image.

    Args:
        model: model of the networks to run.
        judge: computes predictions and counts from fused scores.
        views: views and their fusion.
        mean: RGB, 0 to 255, around images smaller than a window.
        refine: applies a CRF to whole images and judges the result, or None. With a CRF, scores
            of whole images are held on the device.
        batch_size: windows per batch on this process's devices; rounded up to a multiple of the
            number of devices / `space`.
        devices: devices of this process.
        space: devices that share a window, a divisor of their number.
        strip_bytes: approximate bytes of fused scores per device.

    Attributes:
        programs: compiled programs, each (name, *argument shapes).
    """

    def __init__(
        self,
        model: Model,
        judge: Judge,
        views: Views,
        *,
        mean: tuple[float, float, float],
        batch_size: int,
        devices: Sequence[jax.Device],
        space: int = 1,
        refine: Refine | None = None,
        strip_bytes: int = STRIP_BYTES,
    ):
        self.views = views
        self.programs: set[tuple] = set()
        self._model, self._refine, self._judge = model, refine, judge
        self._grids: dict[Size, Size] = {}
        grid = np.array(devices, object).reshape(-1, space)
        mesh = Mesh(grid, ("tile", strips.AXIS), (AxisType.Auto,) * 2)
        self._split, self._whole = NamedSharding(mesh, P("tile")), NamedSharding(mesh, P())
        windows = arrays.round_up(batch_size, len(grid))
        self._limits = Limits(windows, strip_bytes, model.num_classes)
        self._see = jax.jit(sharding.on(mesh, Network.__call__))
        self._cut = jax.jit(functools.partial(_cut, mean=mean))
        self._paste = jax.jit(
            jax.shard_map(
                _paste, mesh=mesh, in_specs=(P("tile"),) * 5 + (P(), P()), out_specs=P("tile")
            ),
            donate_argnums=0,
        )
        self._fuse = jax.jit(functools.partial(_fuse, views=views), donate_argnums=0)
        self._judged = jax.jit(lambda scores, label: judge(_logits(scores, views=views), label))
        self._logits = jax.jit(functools.partial(_logits, views=views))

    def placed(self, network: Network) -> Network:
        """The network with its weights on this process's devices, for `__call__`."""
        here: Network = jax.tree.map(
            lambda x: jax.device_put(x.addressable_data(0), self._whole), network
        )
        return here

    def __call__(self, network: Network, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Labels this process's rows of a batch.

        Args:
            network: result of `placed`.
            batch: see `data.pipeline`; with windows, all images have the same size.

        Returns:
            Result of the judge, with pixel maps [B, H', W', ...] on the grid of `views.argmax`;
            with `refine`, its result.
        """
        work = self._work(batch)
        if self._refine is not None:
            return self._refined(work, network, self._refine)
        maps: dict[str, list[np.ndarray]] = {}
        counts = None
        for first in range(0, work.size[0], work.strip):
            scores = self._strip(work, network, first)
            outputs = self._call("judge", self._judged, scores, work.labels(first))
            outputs = jax.tree.map(np.asarray, outputs)
            more = jax.tree.map(wide, outputs.pop("counts"))
            counts = more if counts is None else jax.tree.map(np.add, counts, more)
            for key, value in outputs.items():
                maps.setdefault(key, []).append(value)
        joined = {key: np.concatenate(parts, axis=1) for key, parts in maps.items()}
        height, width = work.size
        return {key: x[:, :height, :width] for key, x in joined.items()} | {"counts": counts}

    def _work(self, batch: dict[str, np.ndarray]) -> Work:
        seen = self._model.seen(arrays.map_size(batch["image"]))
        return Work(self.views, batch, seen, self._limits)

    def _refined(self, work: Work, network: Network, refine: Refine) -> dict[str, Any]:
        parts = [
            self._call("logits", self._logits, self._strip(work, network, first))
            for first in range(0, work.size[0], work.strip)
        ]
        logits = jnp.concatenate(parts, axis=1)[:, : work.size[0], : work.size[1]]
        batch = work.batch
        label = np.where(batch["weight"][:, None, None] > 0, batch["label"], np.uint8(VOID))
        refined = refine(batch["image"], logits, label, batch["size"])
        outputs: dict[str, Any] = jax.tree.map(np.asarray, refined)
        return outputs

    def scores(self, network: Network, batch: dict[str, np.ndarray]) -> np.ndarray:
        """The fused scores: float32 [B, H', W', K]."""
        work = self._work(batch)
        parts = [
            np.asarray(self._strip(work, network, first).sum(0))
            for first in range(0, work.size[0], work.strip)
        ]
        return np.concatenate(parts, axis=1)[:, : work.size[0], : work.size[1]]

    def _empty(self, work: Work, value: float) -> jax.Array:
        """A constant float32 [devices, B, strip, width, K]: the partial sum of each device."""
        devices, classes = self._split.mesh.shape["tile"], self._limits.num_classes
        shape = (devices, work.image.shape[0], work.strip, work.width, classes)
        return jnp.full(shape, value, jnp.float32, device=self._split)

    def _strip(self, work: Work, network: Network, first: int) -> jax.Array:
        """Fused scores of a strip, not yet summed over devices."""
        fused = self._empty(work, -np.inf if "max" in self.views.fusion else 0.0)
        if self.views.linear:
            for part in work.parts_at(first):
                fused = self._add(fused, work, part, network, first)
            return fused
        for view in range(work.count):
            total = self._empty(work, 0.0)
            for part in work.parts_at(first):
                if part.index == view:
                    total = self._add(total, work, part, network, first)
            fused = self._call("fuse", self._fuse, fused, total, work.count)
        return fused

    def _add(
        self, total: jax.Array, work: Work, part: Part, network: Network, first: int
    ) -> jax.Array:
        """Adds a part's scores to a strip; runs the network unless the part has its scores."""
        scores = self._look(work, part, network) if part.scores is None else part.scores
        geometry, up = work.geometry(part, scores, first, self._through(part, network))
        geometry = jax.device_put(geometry, self._split)
        total = self._call("paste", self._paste, total, scores.values, *geometry, *up)
        if part.span[1] <= first + work.strip:
            part.scores = None
        return total

    def _look(self, work: Work, part: Part, network: Network) -> Scores:
        """Runs the network on a part and stores the scores in it."""
        windows = jax.device_put(work.windows(part), self._split)
        tiles = self._call("cut", self._cut, *windows)
        scores: Scores = self._call("network", self._see, network, tiles)
        for vertices in scores.crf_scalars().values():
            crf_rnn.check(float(vertices))
        part.scores = scores
        return scores

    def _through(self, part: Part, network: Network) -> Sequence[tuple[int, int] | None]:
        """The `through` argument of `Axis.paste` for rows and for columns."""
        size = part.view.through
        if size is None:
            return None, None
        if size not in self._grids:
            image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
            scores = jax.eval_shape(Network.__call__, network, image)
            self._grids[size] = arrays.map_size(scores.values)
        return list(zip(size, self._grids[size], strict=True))

    def _call(self, kind: str, fn: Callable, *args: Any) -> Any:
        self.programs.add((kind, *(np.shape(x) for x in jax.tree.leaves(args))))
        return fn(*args)


def _cut(
    windows: jax.Array, rows: jax.Array, cols: jax.Array, *, mean: tuple[float, float, float]
) -> jax.Array:
    """[N, wh, ww, 3], [N, th, wh], [N, tw, ww] -> float32 [N, th, tw, 3], framed in `mean`."""
    x = jnp.einsum("nth,nhwc->ntwc", rows, windows.astype(jnp.float32), precision="highest")
    x = jnp.einsum("nuw,ntwc->ntuc", cols, x, precision="highest")
    inside = (rows.sum(2) > 0.5)[:, :, None, None] & (cols.sum(2) > 0.5)[:, None, :, None]
    return jnp.where(inside, x, jnp.asarray(mean, jnp.float32))


def _paste(
    total: jax.Array,
    values: jax.Array,
    rows: jax.Array,
    cols: jax.Array,
    at: jax.Array,
    up_rows: jax.Array | None,
    up_cols: jax.Array | None,
) -> jax.Array:
    """Adds the windows of a device to its partial sum, one by one.

    Args:
        total: float32 [1, B, strip, width, K], the partial sum.
        values: [n, h, w, K], scores of the windows.
        rows, cols: [n, oh, g] and [n, ow, g], the paste matrices.
        at: int32 [n, 3], (row of the batch, y, x) of each window.
        up_rows, up_cols: matrices that resize scores to the window; probabilities at that size
            are pasted. None: pastes the scores.
    """

    def add(total: jax.Array, window: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        values, rows, cols, at = window
        values = values.astype(jnp.float32)
        if up_rows is not None and up_cols is not None:
            values = jax.nn.softmax(_spread(values, up_rows, up_cols), axis=-1)
        patch = _spread(values, rows, cols)[None, None]
        corner = (0, *at, 0)
        old = jax.lax.dynamic_slice(total, corner, patch.shape)
        return jax.lax.dynamic_update_slice(total, old + patch, corner), None

    added: jax.Array = jax.lax.scan(add, total, (values, rows, cols, at))[0]
    return added


def _spread(values: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """[h, w, K], [H, h], [W, w] -> [H, W, K]; columns first, because there are fewer rows then."""
    x = jnp.einsum("Ww,hwk->hWk", cols, values, precision="highest")
    return jnp.einsum("Hh,hWk->HWk", rows, x, precision="highest")


def _fuse(fused: jax.Array, view: jax.Array, count: int, *, views: Views) -> jax.Array:
    """Adds one view of `count` to the fused scores."""
    view = view.sum(0, keepdims=True)
    if "probability" in views.fusion and views.softmax == "after_resize":
        view = jax.nn.softmax(view, axis=-1)
    # The first device holds the result; the others contribute zero to the sum.
    first = jnp.arange(fused.shape[0])[:, None, None, None, None] == 0
    if "max" in views.fusion:
        return jnp.where(first, jnp.maximum(fused, view), 0)
    return jnp.where(first, fused + view / count, 0)


def _logits(scores: jax.Array, *, views: Views) -> jax.Array:
    """Logits from fused scores: [devices, B, r, W, K] -> [B, r, W, K]."""
    scores = scores.sum(0)
    if "probability" in views.fusion:
        # The softmax of the logarithm is the probability. Pixels without scores have no label.
        return jnp.log(jnp.maximum(scores, jnp.finfo(jnp.float32).tiny))
    return scores
