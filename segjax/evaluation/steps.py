"""The evaluation step: pure functions of arrays, from a batch to predictions and counts."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from segjax import arrays, sharding
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
"""What a step gives of every pixel."""

SHOWN_MAPS = ("uncertainty", "before")
"""Those that are drawn beside predictions."""


@dataclasses.dataclass(frozen=True)
class Judge:
    """Labels scored pixels, and counts what metrics want to know of them.

    Attributes:
        metrics: those of whole images are left out.
        keep_scores: whether the scores are given, too.
    """

    metrics: tuple[Metric, ...]
    keep_scores: bool = False

    def __call__(self, logits: jax.Array, label: jax.Array) -> dict:
        """Predictions and counts; counts of blocks of rows add up.

        Args:
            logits: [B, r, W, K].
            label: uint8 [B, r, W], classes or VOID.

        Returns:
            `prediction` uint8 [B, r, W], `counts` by the names of metrics, and `scores` float32
            [B, r, W, K] where they are kept.
        """
        pixels = Pixels.of(logits, label)
        counts = {m.name: m.count(pixels) for m in self.metrics if not isinstance(m, ImageMetric)}
        scores = {"scores": pixels.logits} if self.keep_scores else {}
        return {"prediction": pixels.prediction, "counts": counts} | scores


@dataclasses.dataclass(frozen=True)
class Look:
    """One look at every image of a batch, whole: the evaluation step.

    Attributes:
        judge: of the fused scores.
        blocks: of rows, for upsampling and softmax.
        samples: passes with dropout on; 0 is one pass without dropout.
        crf: behind the network, or None.
        mesh: the devices; each refines the images that lie on it.
    """

    judge: Judge
    blocks: int
    samples: int
    crf: Refinement | None
    mesh: Mesh

    def __call__(self, network: Network, batch: Arrays) -> dict:
        """Labels a batch and counts.

        Args:
            network: the weights.
            batch: see `data.pipeline`; rows of weight 0 are predicted and not counted.

        Returns:
            What `Judge` gives. Of several passes also `uncertainty` float32 [B, H, W], see
            `moments`; with a CRF what `refined` gives; of a network with a CRF of its own what
            `Scores.wanted` gives.
        """
        size = arrays.map_size(batch["label"])
        seen = network.model.seen(size)
        image = batch["image"].astype(jnp.float32)
        if seen != size:
            image = resize.resized(image, seen, resize.Resize("half_pixel"))
        if self.samples:
            scores = network.sampled(image, batch["index"], samples=self.samples)
        else:
            scores = network(image)
        label = jnp.where(batch["weight"][:, None, None] > 0, batch["label"], VOID)
        if self.crf is None:
            return self._over(scores, label, seen, self.judge) | scores.wanted()
        found = self._over(scores, label, seen, _logits) | scores.wanted()
        crf = sharding.by_rows(self.crf, self.mesh)
        logits, more = refined(batch["image"], found.pop("logits"), label, batch["size"], crf)
        pixels = Scores(logits, resize.Resize("half_pixel"))
        found_after = row_blocks.over(self.judge, pixels, label, blocks=self.blocks)
        return found | more | joined(found_after, size[0])

    def _over(
        self,
        scores: Scores,
        label: jax.Array,
        seen: Size,
        then: Callable[[jax.Array, jax.Array], dict],
    ) -> dict:
        """`then` of the scores at the image's size, block by block of its rows."""

        def block(logits: jax.Array, label: jax.Array) -> dict:
            more = {}
            if self.samples:
                logits, variance = moments(logits, label.shape[0])
                more = {"uncertainty": variance}
            return more | then(logits, label)

        found = row_blocks.over(block, scores, label, blocks=self.blocks, seen=seen)
        return joined(found, label.shape[1])

    def jitted(self, model: Model) -> Callable[[Network, Arrays], dict]:
        """The step, to be compiled: counts go to every process whole, maps stay with their rows."""
        whole = sharding.replicated(self.mesh)
        by_pixel = sharding.batch_sharding(self.mesh, "label")
        outputs = {"prediction": by_pixel, "counts": whole}
        if self.judge.keep_scores:
            outputs["scores"] = by_pixel
        if self.samples:
            outputs["uncertainty"] = by_pixel
        if self.crf is not None:
            outputs |= {"before": by_pixel, "confusion_before": whole, "overflow": whole}
        if model.has_crf:
            outputs["crf_vertices_wanted"] = whole
        return jax.jit(self, out_shardings=outputs)


def _logits(logits: jax.Array, _: jax.Array) -> Arrays:
    return {"logits": logits.astype(jnp.float32)}


def joined(found: dict, height: int) -> dict:
    """Results of blocks of rows as those of images: pixels in order, counts summed."""
    return {
        key: row_blocks.join(value, height)
        if key in (*MAPS, "logits")
        else jax.tree.map(lambda x: x.sum(0), value)
        for key, value in found.items()
    }


def moments(logits: jax.Array, images: int) -> tuple[jax.Array, jax.Array]:
    """The mean and the variance of the softmax over passes.

    Args:
        logits: [B N, r, W, K], of `Network.sampled`.
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
    """Scores behind a CRF, and what was there before it.

    Args:
        image: uint8 [B, H, W, 3].
        logits: float32 [B, H, W, K].
        label: uint8 [B, H, W], classes or VOID.
        size: int32 [B, 2], of the images; what lies beyond is no part of them.
        crf: of batches of images.

    Returns:
        float32 [B, H, W, K], and `before` uint8 [B, H, W], the prediction of `logits`;
        `confusion_before` int32 [B, K, K]; `overflow` int32 [B], as `DenseCrf.batch` has it.
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
    """What `Judge` gives of scores behind a CRF; for scores that several views made.

    Attributes:
        judge: of the CRF's scores.
        crf: for one process's devices.
    """

    judge: Judge
    crf: Refinement

    def __call__(
        self, image: jax.Array, logits: jax.Array, label: jax.Array, size: jax.Array
    ) -> dict:
        """Arguments and results as of `refined`, with those of `Judge`."""
        logits, more = refined(image, logits, label, size, self.crf)
        return self.judge(logits, label) | more
