"""Labelling of images under one protocol, with the counts of metrics."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from segjax import arrays, sharding, strips
from segjax import crf as crfs
from segjax.arrays import Size
from segjax.data import pipeline
from segjax.data.sources import Source
from segjax.evaluation import steps
from segjax.evaluation.fusion import MultiView
from segjax.evaluation.protocol import EXACT, Protocol
from segjax.evaluation.schedule import nearest
from segjax.metrics.metric import ImageMetric, Metric
from segjax.models import crf_rnn
from segjax.network import Model, Network

BatchOutput = tuple[np.ndarray, pipeline.Batch, dict[str, Any]]
"""Data set indices (-1 for padding rows), this process's rows, and the outputs of the step."""

Plan = Sequence[tuple[tuple[int, int], np.ndarray]]
"""Result of `pipeline.eval_plan`."""


class Labeller:
    """Labels batches of images; compiles one program per canvas size.

    Args:
        model: model of the networks to run.
        mesh: devices; the weights are replicated on all of them.
        protocol: evaluation protocol.
        metrics: metrics to count; () without truth.
        blocks: number of row blocks for upsampling and softmax.
        loader: `config.loader`; reads `threads` and `prefetch`.
        keep_scores: whether to output scores too.
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
        self._image_metrics = [m for m in self.metrics if isinstance(m, ImageMetric)]
        self._capacity = crfs.LatticeCapacity()
        self._looks: dict[tuple[crfs.Refinement | None, bool], Callable] = {}
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
            space=self.mesh.shape[strips.AXIS],
        )

    def plan(self, sizes: np.ndarray) -> Plan:
        """The batches for images of sizes int32 [N, 2], see `pipeline.eval_plan`."""
        protocol = self.protocol
        # With windows, one image fills a batch. Else rows of weight 0 fill up a batch that does not
        # divide, so that any number of devices does.
        tiled = any(protocol.views.tile)
        rows = jax.process_count() if tiled else sharding.rounded_up(protocol.batch_size, self.mesh)
        return pipeline.eval_plan(
            sizes, batch_size=rows, bucket=protocol.bucket, limit=protocol.limit
        )

    def compile(self, network: Network, plan: Plan) -> None:
        """Compiles the evaluation step for every canvas of a plan; with several views, nothing."""
        if self._views is not None:
            return
        for canvas, rows in dict(plan).items():
            local = len(rows) // jax.process_count()
            batch = pipeline.empty_batch(canvas, self.protocol.fill, local)
            jax.block_until_ready(self._step(network, sharding.put_batch(self.mesh, batch)))

    @property
    def programs(self) -> int:
        """Number of compiled programs of the network and its views."""
        return len(self._canvases) if self._views is None else len(self._views.programs)

    def _step(self, network: Network, batch: dict[str, jax.Array]) -> dict[str, Any]:
        """Evaluates a batch on the devices in a single view, see `steps.Look`."""
        canvas, crf = arrays.map_size(batch["label"]), None
        if self.protocol.crf is not None:
            crf = self._refinement(self.protocol.crf, canvas)
        key = crf, sharding.splits(self.mesh, canvas[0])
        if key not in self._looks:
            samples = self.protocol.views.samples
            look = steps.Look(self._judge, self._blocks, samples, crf, self.mesh)
            self._looks[key] = look.jitted(self.model, split=key[1])
        out: dict[str, Any] = self._looks[key](network, batch)
        return out

    def _refine(
        self,
        crf: crfs.DenseCrf,
        image: np.ndarray,
        logits: jax.Array,
        label: np.ndarray,
        size: np.ndarray,
    ) -> dict[str, Any]:
        """Applies the CRF to fused scores; see `fusion.Refine`."""
        refinement = self._refinement(crf, arrays.map_size(label))
        key = refinement, False
        if key not in self._looks:
            self._looks[key] = jax.jit(steps.RefinedJudge(self._judge, refinement))
        out: dict[str, Any] = self._looks[key](image, logits, label, size)
        return out

    def _refinement(self, crf: crfs.DenseCrf, canvas: Size) -> crfs.Refinement:
        return crfs.Refinement(crf, self._capacity.vertices(canvas), self.protocol.bucket != EXACT)

    def batches(self, network: Network, source: Source, plan: Plan) -> Iterator[BatchOutput]:
        """Labels a source batch by batch.

        Indices and counts cover all processes; the maps of `steps.MAPS` cover this process's rows,
        see `sharding.local_rows`. Batches run one ahead, so that the device works while the host
        sums counts.
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

        def settled(rows: np.ndarray, batch: pipeline.Batch, out: dict[str, Any]) -> BatchOutput:
            crf_rnn.check(float(out.pop("crf_vertices_wanted", 0)))
            # Batches run one ahead; a batch that overflowed runs again with the grown capacity.
            while needed := int(np.max(out.pop("overflow", 0))):
                self._capacity.grow(batch["label"].shape[1:], needed)
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
        inputs = {m.name: m.inputs(batch["size"], canvas) for m in self._image_metrics}
        named = {f"{name}/{key}": x for name, by_key in inputs.items() for key, x in by_key.items()}
        placed = sharding.put_batch(self.mesh, batch | named)
        out = self._step(network, {key: placed[key] for key in batch})
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
        for metric in self._image_metrics:
            inputs = metric.inputs(batch["size"], label.shape[1:])
            counts = self._count_images[metric.name](prediction, label, batch["size"], inputs)
            out["counts"][metric.name] = jax.tree.map(np.asarray, counts)
        if jax.process_count() > 1:
            out |= self._gathered({k: v for k, v in out.items() if k not in steps.MAPS})
        return out

    def _gathered(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Gathers the outputs of all processes into those of the whole batch."""
        gathered = multihost_utils.process_allgather(outputs)
        counts = gathered.pop("counts")
        for metric in self.metrics:
            join = _rows if metric.by_image else functools.partial(np.sum, axis=0)
            counts[metric.name] = jax.tree.map(join, counts[metric.name])
        return {key: _rows(value) for key, value in gathered.items()} | {"counts": counts}

    @functools.cached_property
    def _count_images(self) -> dict[str, Callable]:
        """Name of each image metric -> its jitted count over a batch."""
        whole = sharding.replicated(self.mesh) if self._views is None else None

        def batch_count(metric: ImageMetric) -> Callable:
            def count(
                prediction: jax.Array,
                label: jax.Array,
                size: jax.Array,
                inputs: dict[str, jax.Array],
            ) -> dict[str, jax.Array]:
                return metric.count_image(prediction, label, size, **inputs)

            return jax.jit(jax.vmap(count), out_shardings=whole)

        return {metric.name: batch_count(metric) for metric in self._image_metrics}


def _rows(gathered: np.ndarray) -> np.ndarray:
    """[processes, rows, ...] -> [processes x rows, ...]."""
    return gathered.reshape(-1, *gathered.shape[2:])


def _confusions(prediction: np.ndarray, batch: pipeline.Batch, classes: int) -> np.ndarray:
    """Confusion matrices of a batch, computed on the host: int64 [B, K, K]."""
    label = np.where(batch["weight"][:, None, None] > 0, batch["label"], classes).astype(np.int64)
    matrices = []
    for truth, predicted in zip(label, prediction, strict=True):
        pair = (truth * classes + predicted)[truth < classes]
        matrices.append(np.bincount(pair, minlength=classes**2).reshape(classes, classes))
    return np.stack(matrices)
