"""The evaluation step: pure functions of arrays, from a batch to predictions and counts."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from segjax import arrays, sharding, strips
from segjax.arrays import Size
from segjax.crf import Refinement
from segjax.data.spec import VOID
from segjax.metrics import confusion
from segjax.metrics.metric import ImageMetric, Metric, Pixels
from segjax.models import resize, row_blocks
from segjax.models.features import Scores
from segjax.network import Model, Network

Arrays = dict[str, jax.Array]

Crf = Callable[[jax.Array, jax.Array, jax.Array | None], tuple[jax.Array, jax.Array]]
"""(image, logits, mask) -> (logits, overflow), see `DenseCrf.batch`."""

MAPS = ("prediction", "uncertainty", "before", "scores")
"""Names of the pixel maps that a step may output."""

SHOWN_MAPS = ("uncertainty", "before")
"""Names of the maps drawn beside predictions."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """Predictions and metric counts from scores.

    Attributes:
        metrics: metrics to count; metrics of whole images are skipped.
        keep_scores: whether to output scores too.
    """

    metrics: tuple[Metric, ...]
    keep_scores: bool = False

    def __call__(self, logits: jax.Array, label: jax.Array) -> dict:
        """Predictions and counts. Counts of row blocks can be summed.

        Args:
            logits: [B, r, W, K].
            label: uint8 [B, r, W], classes or VOID.

        Returns:
            `prediction` uint8 [B, r, W]; `counts` by metric name; with `keep_scores` also `scores`,
            float32 [B, r, W, K].
        """
        pixels = Pixels.of(logits, label)
        counts = {m.name: m.count(pixels) for m in self.metrics if not isinstance(m, ImageMetric)}
        scores = {"scores": pixels.logits} if self.keep_scores else {}
        return {"prediction": pixels.prediction, "counts": counts} | scores


@dataclasses.dataclass(frozen=True)
class Look:
    """The evaluation step for a single view of whole images.

    Attributes:
        judge: computes predictions and counts from scores.
        blocks: number of row blocks for upsampling and softmax.
        samples: number of passes with dropout on; 0 is one pass without dropout.
        crf: CRF applied to the network's scores, or None.
        mesh: devices; each applies the CRF to its images.
    """

    judge: Judge
    blocks: int
    samples: int
    crf: Refinement | None
    mesh: Mesh

    def __call__(self, network: Network, batch: Arrays) -> dict:
        """Predictions and counts of a batch.

        Args:
            network: the network.
            batch: see `data.pipeline`; rows of weight 0 are predicted but not counted.

        Returns:
            Results of `Judge`; with samples also `uncertainty` float32 [B, H, W], see `moments`;
            with a CRF also the maps and counts of `refined`; with a CRF layer in the network also
            `Scores.crf_scalars`.
        """
        size = arrays.map_size(batch["label"])
        seen = network.model.seen(size)
        image = strips.split(batch["image"].astype(jnp.float32))
        if seen != size:
            image = strips.split(resize.resized(image, seen, resize.Resize("half_pixel")))
        if self.samples:
            numbers = jax.vmap(image_number)(batch["image"], batch["size"])
            scores = network.sampled(image, numbers, samples=self.samples)
        else:
            scores = network(image)
        label = strips.split(jnp.where(batch["weight"][:, None, None] > 0, batch["label"], VOID))
        if self.crf is None:
            return self._over(scores, label, seen, self.judge) | scores.crf_scalars()
        outputs = self._over(scores, label, seen, _logits) | scores.crf_scalars()
        crf = sharding.by_rows(self.crf, self.mesh)
        logits, more = refined(batch["image"], outputs.pop("logits"), label, batch["size"], crf)
        pixels = Scores(logits, resize.Resize("half_pixel"))
        judged = row_blocks.over(self.judge, pixels, label, blocks=self.blocks)
        return outputs | more | joined(judged, size[0])

    def _over(
        self,
        scores: Scores,
        label: jax.Array,
        seen: Size,
        then: Callable[[jax.Array, jax.Array], dict],
    ) -> dict:
        """Applies `then` to the scores at the image's size, one block of rows at a time."""

        def block(logits: jax.Array, label: jax.Array) -> dict:
            more = {}
            if self.samples:
                logits, variance = moments(logits, label.shape[0])
                more = {"uncertainty": variance}
            return more | then(logits, label)

        outputs = row_blocks.over(block, scores, label, blocks=self.blocks, seen=seen)
        return joined(outputs, label.shape[1])

    def jitted(self, model: Model, *, split: bool) -> jax.stages.Wrapped:
        """The jitted step: (network, batch) -> results.

        Counts are replicated on every process, maps stay with their rows.

        Args:
            model: the model.
            split: see `sharding.batch_sharding`.
        """
        whole = sharding.replicated(self.mesh)
        by_pixel = sharding.batch_sharding(self.mesh, "label", split=split)
        outputs = {"prediction": by_pixel, "counts": whole}
        if self.judge.keep_scores:
            outputs["scores"] = by_pixel
        if self.samples:
            outputs["uncertainty"] = by_pixel
        if self.crf is not None:
            outputs |= {"before": by_pixel, "confusion_before": whole, "overflow": whole}
        if model.has_crf:
            outputs["crf_vertices_wanted"] = whole
        return jax.jit(sharding.on(self.mesh, self), out_shardings=outputs)


def image_number(image: jax.Array, size: jax.Array) -> jax.Array:
    """A number that depends on the pixels of an image alone: uint32 [].

    With it as the key of dropout, an image gets the same passes whatever lies beside it, in a data
    set or a folder. A weighted sum modulo 2^32, so the same on any number of devices.

    Args:
        image: uint8 [H, W, 3].
        size: int32 [2], size of the image; pixels outside do not count.
    """
    rows, cols = (jnp.arange(n, dtype=jnp.uint32) for n in image.shape[:2])
    height, width = size.astype(jnp.uint32)
    inside = (rows < height)[:, None] & (cols < width)
    place = rows[:, None] * width + cols
    red, green, blue = jnp.moveaxis(image.astype(jnp.uint32), -1, 0)
    words = red | green << 8 | blue << 16
    mixed = (words + 1) * ((place + 1) * jnp.uint32(0x9E3779B1) | 1)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x85EBCA77)
    return jnp.sum(jnp.where(inside, mixed ^ (mixed >> 13), 0), dtype=jnp.uint32)


def _logits(logits: jax.Array, _: jax.Array) -> Arrays:
    return {"logits": logits.astype(jnp.float32)}


def joined(blocks: dict, height: int) -> dict:
    """Joins the outputs of row blocks: concatenates maps and sums counts."""
    return {
        key: row_blocks.join(value, height)
        if key in (*MAPS, "logits")
        else jax.tree.map(lambda x: x.sum(0), value)
        for key, value in blocks.items()
    }


def moments(logits: jax.Array, images: int) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of the softmax over dropout passes.

    Args:
        logits: [B N, r, W, K], from `Network.sampled`.
        images: B.

    Returns:
        float32 [B, r, W, K], the logarithm of the mean, and float32 [B, r, W], the variance over
        the N passes, averaged over the classes.
    """
    logits = logits.astype(jnp.float32).reshape(images, -1, *logits.shape[1:])
    p = jax.nn.softmax(logits, axis=-1)
    log_mean = jax.nn.logsumexp(jax.nn.log_softmax(logits, axis=-1), axis=1)
    return log_mean - jnp.log(p.shape[1]), jnp.mean(jnp.var(p, axis=1), axis=-1)


def refined(
    image: jax.Array, logits: jax.Array, label: jax.Array, size: jax.Array, crf: Crf
) -> tuple[jax.Array, Arrays]:
    """Applies a CRF to scores; also returns the labels before it.

    Args:
        image: uint8 [B, H, W, 3].
        logits: float32 [B, H, W, K].
        label: uint8 [B, H, W], classes or VOID.
        size: int32 [B, 2], image sizes; pixels outside them are masked.
        crf: applies a CRF to a batch.

    Returns:
        float32 [B, H, W, K], the refined scores.
        `before` uint8 [B, H, W], the prediction of `logits`; `confusion_before` int32 [B, K, K];
        `overflow` int32 [B], see `DenseCrf.batch`.
    """
    before = jnp.argmax(logits, axis=-1).astype(jnp.uint8)
    rows, cols = (jnp.arange(n) for n in label.shape[1:])
    inside = (rows < size[:, :1])[:, :, None] & (cols < size[:, 1:])[:, None, :]
    out, overflow = crf(image, logits, inside)
    classes = logits.shape[-1]
    count = jax.vmap(lambda p, t: confusion.count(p, t, classes))(before, label)
    return out, {"before": before, "confusion_before": count, "overflow": overflow}


@dataclasses.dataclass(frozen=True)
class RefinedJudge:
    """Predictions and counts after a CRF, for the fused scores of several views.

    Attributes:
        judge: computes predictions and counts from the CRF's scores.
        crf: CRF for the devices of one process.
    """

    judge: Judge
    crf: Refinement

    def __call__(
        self, image: jax.Array, logits: jax.Array, label: jax.Array, size: jax.Array
    ) -> dict:
        """Results of `Judge` and `refined`; the arguments are those of `refined`."""
        logits, more = refined(image, logits, label, size, self.crf)
        return self.judge(logits, label) | more
