"""Labelling images under one protocol, and counting what metrics want to know of them."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from segjax import arrays, sharding
from segjax import crf as crfs
from segjax.arrays import Size
from segjax.data import pipeline
from segjax.data.sources import Source
from segjax.evaluation import steps
from segjax.evaluation.fusion import MultiView
from segjax.evaluation.protocol import Protocol
from segjax.evaluation.schedule import nearest
from segjax.metrics.metric import ImageMetric, Metric
from segjax.models import crf_rnn
from segjax.network import Model, Network

Found = tuple[np.ndarray, pipeline.Batch, dict[str, Any]]
"""Items of the data set, -1 for fill; this process's rows; what a step gave of them."""

Plan = Sequence[tuple[tuple[int, int], np.ndarray]]
"""See `pipeline.eval_plan`."""


class Labeller:
    """Labels batches of images; its programs are compiled once for every size.

    Args:
        model: of the networks that it is given.
        mesh: the devices, to all of which the weights are copied.
        protocol: says how images are labelled.
        metrics: that count; none where there is no truth.
        blocks: of rows, for upsampling and softmax.
        loader: `config.loader`: threads and prefetch.
        keep_scores: whether scores are given, too.
    """

    def __init__(
        self,
        model: Model,
        mesh: Mesh,
        protocol: Protocol,
        *,
        metrics: Sequence[Metric],
        blocks: int,
        loader: ml_collections.ConfigDict,
        keep_scores: bool = False,
    ):
        self.model, self.mesh, self.protocol = model, mesh, protocol
        self.metrics = tuple(metrics)
        self._blocks, self._loader = blocks, loader
        self._judge = steps.Judge(self.metrics, keep_scores)
        self._of_images = [m for m in self.metrics if isinstance(m, ImageMetric)]
        self._room = crfs.Room()
        self._looks: dict[crfs.Refinement | None, Callable] = {}
        self._views = None if protocol.views.plain else self._multiview()
        self._canvases: set[tuple[int, int]] = set()

    def _multiview(self) -> MultiView:
        crf = self.protocol.crf
        return MultiView(
            self.model,
            self._judge,
            self.protocol.views,
            mean=self.protocol.fill,
            refine=None if crf is None else functools.partial(self._refine, crf),
            batch_size=max(1, self.protocol.batch_size // jax.process_count()),
            devices=list(self.mesh.local_devices),
        )

    def plan(self, sizes: np.ndarray) -> Plan:
        """Which images go together: of sizes int32 [N, 2], see `pipeline.eval_plan`."""
        protocol = self.protocol
        # With windows, one image fills a batch.
        rows = jax.process_count() if any(protocol.views.tile) else protocol.batch_size
        return pipeline.eval_plan(
            sizes, batch_size=rows, bucket=protocol.bucket, limit=protocol.limit
        )

    def canvases(self, plan: Plan) -> list[tuple[int, int]]:
        """Sizes that `step` will be compiled for; none under several views."""
        return sorted({canvas for canvas, _ in plan}) if self._views is None else []

    @property
    def programs(self) -> int:
        """How many programs of the network and its views have run."""
        return len(self._canvases) if self._views is None else len(self._views.programs)

    def step(self, network: Network, batch: dict[str, jax.Array]) -> dict[str, Any]:
        """One batch on the devices, each image in one look: see `steps.Look`."""
        crf = None
        if self.protocol.crf is not None:
            crf = self._refinement(self.protocol.crf, arrays.map_size(batch["label"]))
        if crf not in self._looks:
            samples = self.protocol.views.samples
            look = steps.Look(self._judge, self._blocks, samples, crf, self.mesh)
            self._looks[crf] = look.jitted(self.model)
        out: dict[str, Any] = self._looks[crf](network, batch)
        return out

    def _refine(
        self,
        crf: crfs.DenseCrf,
        image: np.ndarray,
        logits: jax.Array,
        label: np.ndarray,
        size: np.ndarray,
    ) -> dict[str, Any]:
        """The CRF behind several views."""
        refinement = self._refinement(crf, arrays.map_size(label))
        if refinement not in self._looks:
            self._looks[refinement] = jax.jit(steps.RefinedJudge(self._judge, refinement))
        out: dict[str, Any] = self._looks[refinement](image, logits, label, size)
        return out

    def _refinement(self, crf: crfs.DenseCrf, canvas: Size) -> crfs.Refinement:
        return crfs.Refinement(crf, self._room.capacity(canvas), self.protocol.bucket != 1)

    def batches(self, network: Network, source: Source, plan: Plan) -> Iterator[Found]:
        """Labels a source; yields what was found of every batch.

        Items and counts are those of all processes. Maps of `steps.MAPS` are this process's, see
        `sharding.local_rows`. Batches run one ahead, so that the device works while the host adds
        up.
        """
        batches = pipeline.eval_batches(
            source,
            plan,
            fill=self.protocol.fill,
            process=jax.process_index(),
            processes=jax.process_count(),
            threads=self._loader.threads,
            prefetch=self._loader.prefetch,
        )
        label: Callable[[Network, pipeline.Batch], dict[str, Any]] = self._label_once
        if self._views is not None:
            label = functools.partial(self._label_views, self._views)
            network = self._views.placed(network)

        def settled(rows: np.ndarray, batch: pipeline.Batch, out: dict[str, Any]) -> Found:
            crf_rnn.check(float(out.pop("crf_vertices_wanted", 0)))
            # A batch that overflowed may have been started before there was room enough.
            while wanted := int(np.max(out.pop("overflow", 0))):
                self._room.grow(batch["label"].shape[1:], wanted)
                out = label(network, batch)
            return rows, batch, out

        late = None
        for (_, rows), batch in zip(plan, batches, strict=True):
            out = label(network, batch)
            if late is not None:
                yield settled(*late)
            late = rows, batch, out
        if late is not None:
            yield settled(*late)

    def _label_once(self, network: Network, batch: pipeline.Batch) -> dict[str, Any]:
        canvas = batch["label"].shape[1:]
        self._canvases.add(canvas)
        inputs = {m.name: m.inputs(batch["size"], canvas) for m in self._of_images}
        named = {f"{name}/{key}": x for name, by_key in inputs.items() for key, x in by_key.items()}
        placed = sharding.put_batch(self.mesh, batch | named)
        out = self.step(network, {key: placed[key] for key in batch})
        for name, by_key in inputs.items():
            rows = {key: placed[f"{name}/{key}"] for key in by_key}
            count = self._count_images[name]
            out["counts"][name] = count(out["prediction"], placed["label"], placed["size"], rows)
        return out

    def _label_views(
        self, views: MultiView, network: Network, batch: pipeline.Batch
    ) -> dict[str, Any]:
        out = views(network, batch)
        label, prediction = batch["label"], out["prediction"]
        if prediction.shape != label.shape:
            rows, cols = (nearest(label.shape[i], prediction.shape[i]) for i in (1, 2))
            prediction = out["prediction"] = prediction[:, rows][:, :, cols]
            if "mean_iou" in out["counts"]:
                counted = _confusions(prediction, batch, self.model.num_classes)
                out["counts"]["mean_iou"]["confusion"] = counted
        for metric in self._of_images:
            inputs = metric.inputs(batch["size"], label.shape[1:])
            counts = self._count_images[metric.name](prediction, label, batch["size"], inputs)
            out["counts"][metric.name] = jax.tree.map(np.asarray, counts)
        if jax.process_count() > 1:
            out |= self._gathered({k: v for k, v in out.items() if k not in steps.MAPS})
        return out

    def _gathered(self, found: dict[str, Any]) -> dict[str, Any]:
        """What processes found of their rows, as of the whole batch."""
        everywhere = multihost_utils.process_allgather(found)
        counts = everywhere.pop("counts")
        for metric in self.metrics:
            join = _rows if metric.by_image else functools.partial(np.sum, axis=0)
            counts[metric.name] = jax.tree.map(join, counts[metric.name])
        return {key: _rows(value) for key, value in everywhere.items()} | {"counts": counts}

    @functools.cached_property
    def _count_images(self) -> dict[str, Callable]:
        """Name of a metric of whole images -> its counts of a batch, jitted."""
        whole = sharding.replicated(self.mesh) if self._views is None else None

        def of_batch(metric: ImageMetric) -> Callable:
            def of_image(
                prediction: jax.Array,
                label: jax.Array,
                size: jax.Array,
                inputs: dict[str, jax.Array],
            ) -> dict[str, jax.Array]:
                return metric.count_image(prediction, label, size, **inputs)

            return jax.jit(jax.vmap(of_image), out_shardings=whole)

        return {metric.name: of_batch(metric) for metric in self._of_images}


def _rows(gathered: np.ndarray) -> np.ndarray:
    """[processes, rows, ...] -> [processes x rows, ...]."""
    return gathered.reshape(-1, *gathered.shape[2:])


def _confusions(prediction: np.ndarray, batch: pipeline.Batch, classes: int) -> np.ndarray:
    """int64 [B, K, K], on the host."""
    label = np.where(batch["weight"][:, None, None] > 0, batch["label"], classes).astype(np.int64)
    found = []
    for truth, predicted in zip(label, prediction, strict=True):
        pair = (truth * classes + predicted)[truth < classes]
        found.append(np.bincount(pair, minlength=classes**2).reshape(classes, classes))
    return np.stack(found)
