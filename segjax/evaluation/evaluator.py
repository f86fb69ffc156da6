"""Scoring a network on a split under a stated protocol, every example exactly once."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from segjax import crf as crfs
from segjax import sharding
from segjax.data import pipeline
from segjax.data.sources import Source
from segjax.errors import InputError
from segjax.evaluation import protocol as protocols
from segjax.evaluation import steps
from segjax.evaluation.fusion import MultiView, nearest
from segjax.metrics import bootstrap, calibration, class_boundaries, confusion
from segjax.models import crf_rnn
from segjax.training.assembly import Experiment

Example = tuple[np.ndarray, np.ndarray, np.ndarray]
"""image uint8 [H, W, 3], truth uint8 [H, W], prediction uint8 [H, W]."""


_SUMMED = tuple(key for key in steps.COUNTS if key != "confusion")  # not by image


@dataclasses.dataclass(frozen=True)
class Result:
    """An evaluation.

    Attributes:
        report: the scores, with their confusion matrix.
        loss: cross-entropy per labelled pixel, in nats; class weights included.
        ece: expected calibration error, 0 to 1.
        images: by image, in the order of `index` int64 [n] (items of the data set): `marginals`
            int64 [n, 3, K] of `confusion.marginals`, and where they were asked for the counts of
            `contours`.
        panel: some of them, with their predictions.
        maps: of these, what else `steps.MAPS` names, [H, W] each: "uncertainty" where the protocol
            takes samples, "before" where a CRF stands behind the network.
        before: the scores before that CRF, or None.
        programs: how many were compiled.
    """

    report: confusion.Report
    loss: float
    ece: float
    images: dict[str, np.ndarray]
    panel: list[Example]
    maps: dict[str, list[np.ndarray]]
    before: confusion.Report | None
    programs: int

    @functools.cached_property
    def interval(self) -> bootstrap.Interval:
        """mIoU with its interval."""
        return bootstrap.miou(self.images["marginals"])

    @property
    def examples(self) -> int:
        """How many images were seen."""
        return len(self.images["index"])

    def scalars(self) -> dict[str, float]:
        """For logs: loss, miou, pixel_accuracy, mean_accuracy, fwiou, ece; miou_before_crf."""
        before = {} if self.before is None else {"miou_before_crf": self.before.miou}
        return {"loss": self.loss} | self.report.scalars() | {"ece": self.ece} | before


def protocol(
    experiment: Experiment, split: str, sizes: np.ndarray, views: str = "", crf: str = ""
) -> dict[str, Any]:
    """How a number is made, as plain data; stored beside it, and obeyed by `predict`.

    Args:
        experiment: the run.
        split: name of the split.
        sizes: int32 [N, 2], of its images.
        views: as `config.eval.protocol`, which it replaces.
        crf: as `crf.parse` reads it, in place of `config.eval.crf`; "none" for none.

    Raises:
        InputError: on a protocol or CRF that is not known, or if images shall be filled up that
            the network sees at one fixed size.
    """
    config = experiment.config
    chosen = protocols.parse(views or config.eval.protocol)
    refinement = crf_of(config, crf)
    bucket = config.eval.bucket if chosen.bucket is None else chosen.bucket
    if any(chosen.tile):
        bucket = 1  # windows are cut from the image itself, whatever its size
    elif any(config.input_size):
        # What fills an image up would be squeezed into that size with it.
        if bucket > 1:
            raise InputError(
                f"config.eval.bucket is {bucket}; with config.input_size it is 0 or 1."
            )
        bucket = 1
    return {
        "split": split,
        "limit": config.eval.limit,
        "batch_size": config.eval.batch_size,
        "bucket": pipeline.resolve_bucket(bucket, sizes),
        "fill": list(config.preprocess.mean),
        "input_scale": config.input_scale,
        "input_size": list(config.input_size),
        "views": chosen.to_json(),
        "crf": refinement,
    }


def crf_of(config: ml_collections.ConfigDict, crf: str = "") -> dict[str, Any] | None:
    """The CRF of a config, or what `crf` puts in its place, as plain data: see `protocol`."""
    if crf == "none":
        return None
    found = crfs.parse(crf) if crf else crfs.build(**config.eval.crf)
    return None if found is None else found.to_json()


class Evaluator:
    """Labels and scores a split under one protocol; its programs are compiled once.

    Args:
        experiment: the run's parts.
        source: the split.
        sizes: int32 [N, 2], of its images.
        how: of `protocol`.
        details: whether the counts of `contours` are taken too.
    """

    def __init__(
        self,
        experiment: Experiment,
        source: Source,
        sizes: np.ndarray,
        how: dict[str, Any],
        *,
        details: bool = False,
    ):
        self.experiment, self.source, self.how, self.details = experiment, source, how, details
        self._protocol = protocols.Protocol.from_json(how.get("views", {}))  # once there was one
        self._crf = crfs.DenseCrf(**how["crf"]) if how.get("crf") else None
        self._room = crfs.Room()
        if self._crf and self._protocol.argmax != "image":
            raise InputError(
                f"{crfs.KEY}: it refines at the size of the image; protocol argmax "
                f"{self._protocol.argmax!r} does not go with it."
            )
        # Of windows there are enough in one image to fill the devices.
        rows = jax.process_count() if any(self._protocol.tile) else how["batch_size"]
        self.plan = pipeline.eval_plan(
            sizes, batch_size=rows, bucket=how["bucket"], limit=how["limit"]
        )
        self._views = None if self._protocol.plain else self._multiview()
        self._canvases: set[tuple[int, int]] = set()

    def _multiview(self) -> MultiView:
        config = self.experiment.config
        seen = functools.partial(
            steps.input_size, scale=config.input_scale, fixed=config.input_size
        )
        return MultiView(
            self.experiment.network,
            self.experiment.judge,
            self._protocol,
            seen=seen,
            mean=tuple(self.how["fill"]),
            num_classes=self.experiment.spec.num_classes,
            refine=None if self._crf is None else self._refine,
            batch_size=max(1, self.how["batch_size"] // jax.process_count()),
            devices=list(self.experiment.mesh.local_devices),
        )

    def step(self, params: Any, batch_stats: Any, batch: dict[str, jax.Array]) -> dict:
        """One batch on the devices, without several views: see `steps.eval_step`."""
        crf = self._refinement(batch["label"].shape[1:])
        return self.experiment.step_under(self._protocol.samples, crf)(params, batch_stats, batch)

    def _refine(self, image, logits, label, size) -> dict:
        """The same behind several views."""
        crf = self._refinement(label.shape[1:])
        return self.experiment.refine_under(crf)(image, logits, label, size)

    def _refinement(self, canvas: tuple[int, int]) -> crfs.Refinement | None:
        if self._crf is None:
            return None
        filled = self.how["bucket"] != 1
        return crfs.Refinement(self._crf, self._room.capacity(canvas), filled)

    def canvases(self) -> list[tuple[int, int]]:
        """Sizes that `step` will be compiled for; none under several views."""
        return sorted({canvas for canvas, _ in self.plan}) if self._views is None else []

    def names(self, result: Result) -> list[str]:
        """The names of the images of a result."""
        return [self.source.name(int(index)) for index in result.images["index"]]

    @property
    def programs(self) -> int:
        """How many programs of the network and its views have run."""
        return len(self._canvases) if self._views is None else len(self._views.programs)

    def __call__(
        self,
        params: Any,
        batch_stats: Any,
        *,
        progress: Callable[[int], None] = lambda done: None,
        observe: Callable[[int, Example, np.ndarray], None] | None = None,
    ) -> Result:
        """Scores weights. Counts are added up in int64 and float64; the device never divides.

        Args:
            params, batch_stats: the weights.
            progress: called with the number of batches done.
            observe: called for every image of this process with its item of the data set, its
                `Example` and its `confusion.marginals`.
        """
        totals = {"confusion": 0, "loss": 0.0, "pixels": 0, "calibration": 0.0}
        images: dict[str, list] = {"index": []}
        wanted = _panel_indices(self.plan, self.experiment.config.eval.pictures)
        panel: dict[int, Example] = {}
        maps: dict[str, dict[int, np.ndarray]] = {}
        before = 0
        for done, (rows, batch, out) in enumerate(self.batches(params, batch_stats)):
            counts = {key: np.asarray(v) for key, v in out.items() if key not in steps.MAPS}
            by_image = np.asarray(counts.pop("confusion"), np.int64)
            totals["confusion"] += by_image.sum(0)
            if self._crf is not None:
                before += np.asarray(counts.pop("confusion_before"), np.int64).sum(0)
            for key in _SUMMED:
                totals[key] += np.asarray(counts.pop(key), np.float64)
            images["index"].append(rows[rows >= 0])
            counts["marginals"] = confusion.marginals(by_image)
            for key, value in counts.items():
                images.setdefault(key, []).append(np.asarray(value, np.int64)[rows >= 0])
            if observe is not None or wanted & set(batch["index"][batch["weight"] > 0].tolist()):
                for index, example in examples(batch, out["prediction"]).items():
                    if index in wanted:
                        panel[index] = example
                    if observe is not None:
                        (row,) = np.flatnonzero(rows == index)
                        observe(index, example, counts["marginals"][row])
            for key in steps.MAPS[1:] if wanted & set(batch["index"].tolist()) else ():
                if key in out:
                    found = cut(batch, out[key])
                    maps.setdefault(key, {}).update({i: found[i] for i in wanted & found.keys()})
            progress(done + 1)
        pixels = float(totals["pixels"])
        return Result(
            report=confusion.report(totals["confusion"]),
            loss=float(totals["loss"]) / pixels if pixels else float("nan"),
            ece=calibration.expected_error(totals["calibration"]),
            images={key: np.concatenate(value) for key, value in images.items()},
            panel=[panel[index] for index in sorted(panel)],
            maps={key: [found[index] for index in sorted(found)] for key, found in maps.items()},
            before=None if self._crf is None else confusion.report(before),
            programs=self.programs,
        )

    def batches(self, params: Any, batch_stats: Any) -> Iterator[tuple[np.ndarray, dict, dict]]:
        """Yields (items of the data set, -1 for fill; this process's rows; what was found).

        The first and all counts are of all processes: `confusion` [B, K, K] by image, `loss`,
        `pixels`, `calibration` of all. `steps.MAPS` are this process's, see `state.local_rows`. One
        batch late, so that the device works while the host adds up the one before.
        """
        loader = self.experiment.config.loader
        batches = pipeline.eval_batches(
            self.source,
            self.plan,
            fill=self.how["fill"],
            process=jax.process_index(),
            processes=jax.process_count(),
            threads=loader.threads,
            prefetch=loader.prefetch,
        )
        label = self._label_once if self._views is None else self._label_views
        weights = (
            (params, batch_stats)
            if self._views is None
            else self._views.weights(params, batch_stats)
        )

        def settled(rows, batch, out):
            crf_rnn.check(float(out.pop("crf_vertices_wanted", 0)))
            # What overflowed may have been asked for before there was the room that there is now.
            while wanted := int(np.max(out.pop("overflow", 0))):
                self._room.grow(batch["label"].shape[1:], wanted)
                out = label(weights, batch)
            return rows, batch, out

        late = None
        for (_, rows), batch in zip(self.plan, batches, strict=True):
            out = label(weights, batch)
            if late is not None:
                yield settled(*late)
            late = rows, batch, out
        if late is not None:
            yield settled(*late)

    def _label_once(self, weights, batch: dict[str, np.ndarray]) -> dict:
        mesh, canvas = self.experiment.mesh, batch["label"].shape[1:]
        self._canvases.add(canvas)
        rows = batch | (_contour_rows(batch["size"], canvas) if self.details else {})
        placed = sharding.put_batch(mesh, rows)
        step = {key: placed[key] for key in batch}
        out = self.step(*weights, step)
        if self.details:
            out |= self._contours(
                out["prediction"], placed["label"], placed["size"], placed["steps"], placed["rim"]
            )
        return out

    def _label_views(self, weights, batch: dict[str, np.ndarray]) -> dict:
        out = self._views(weights, batch)
        label, prediction = batch["label"], out["prediction"]
        if prediction.shape != label.shape:
            rows, cols = (nearest(label.shape[i], prediction.shape[i]) for i in (1, 2))
            prediction = out["prediction"] = prediction[:, rows][:, :, cols]
            out["confusion"] = _confusions(prediction, batch, self.experiment.spec.num_classes)
        if self.details:
            more = _contour_rows(batch["size"], label.shape[1:])
            found = self._contours(prediction, label, batch["size"], more["steps"], more["rim"])
            out |= jax.tree.map(np.asarray, found)
        if jax.process_count() > 1:
            mine = {key: value for key, value in out.items() if key not in steps.MAPS}
            everywhere = multihost_utils.process_allgather(mine)
            for key, value in everywhere.items():
                out[key] = value.sum(0) if key in _SUMMED else value.reshape(-1, *value.shape[2:])
        return out

    @functools.cached_property
    def _contours(self) -> Callable:
        """The counts of `contours` for a batch."""
        classes = self.experiment.spec.num_classes

        def count(prediction, label, size, steps, rim):
            capacity = _capacity(label.shape[1:])
            one = functools.partial(class_boundaries.counts, num_classes=classes, capacity=capacity)
            return jax.vmap(one)(prediction, label, size, steps, rim)

        if self._views is None:
            return jax.jit(count, out_shardings=sharding.replicated(self.experiment.mesh))
        return jax.jit(count)


def _capacity(canvas: tuple[int, int]) -> int:
    return math.floor(class_boundaries.radii(canvas)[0])


def _contour_rows(sizes: np.ndarray, canvas: tuple[int, int]) -> dict[str, np.ndarray]:
    """What `contours.counts` is told of each image: `steps` int32 [B, N, 2] and `rim` int32 [B]."""
    radii = [class_boundaries.radii(size) for size in sizes]
    discs = {near: class_boundaries.disc(near, _capacity(canvas)) for near, _ in radii}
    return {
        "steps": np.stack([discs[near] for near, _ in radii]),
        "rim": np.array([rim for _, rim in radii], np.int32),
    }


def _confusions(prediction: np.ndarray, batch: dict, classes: int) -> np.ndarray:
    """int64 [B, K, K], on the host."""
    label = np.where(batch["weight"][:, None, None] > 0, batch["label"], classes).astype(np.int64)
    found = []
    for truth, predicted in zip(label, prediction, strict=True):
        pair = (truth * classes + predicted)[truth < classes]
        found.append(np.bincount(pair, minlength=classes**2).reshape(classes, classes))
    return np.stack(found)


def _panel_indices(plan, pictures: int) -> set[int]:
    """Examples for the panel, spread over what this process sees."""
    processes, process = jax.process_count(), jax.process_index()
    mine = [i for _, rows in plan for i in np.split(rows, processes)[process] if i >= 0]
    if not mine or not pictures:
        return set()
    mine.sort()
    return {int(mine[i]) for i in np.linspace(0, len(mine) - 1, pictures).round().astype(int)}


def examples(batch: dict, prediction: jax.Array | np.ndarray) -> dict[int, Example]:
    """Item of the data set -> example, of this process's rows that are no fill."""
    parts = [cut(batch, array) for array in (batch["image"], batch["label"], prediction)]
    return {index: tuple(part[index] for part in parts) for index in parts[0]}


def cut(batch: dict, array: jax.Array | np.ndarray) -> dict[int, np.ndarray]:
    """Item of the data set -> its part of [B, H, W, ...], of this process's rows, without fill."""
    rows = sharding.local_rows(array) if isinstance(array, jax.Array) else array
    found = {}
    for row in np.flatnonzero(batch["weight"]):
        height, width = batch["size"][row]
        found[int(batch["index"][row])] = rows[row, :height, :width]
    return found
