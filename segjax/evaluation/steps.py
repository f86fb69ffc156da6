"""The evaluation step: a pure function of arrays."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.losses import pixels
from segjax.metrics import calibration, confusion
from segjax.models import functional, resize, row_blocks
from segjax.models.features import Scores
from segjax.models.preprocess import Preprocess

COUNTS = ("confusion", "loss", "pixels", "calibration")
"""What `judge` counts, beside its prediction."""

MAPS = ("prediction", "uncertainty", "before")
"""What `eval_step` gives of every pixel."""


def network(
    params: Any, batch_stats: Any, image: jax.Array, *, graph: Any, preprocess: Preprocess
) -> Scores:
    """What the network says of images: [B, H, W, 3], 0 to 255 -> Scores."""
    return functional.merge(graph, params, batch_stats)(preprocess(image), image=image)[0]


def sampled(
    params: Any,
    batch_stats: Any,
    image: jax.Array,
    index: jax.Array,
    *,
    graph: Any,
    preprocess: Preprocess,
    samples: int,
    seed: int,
) -> Scores:
    """What the network says in several passes with dropout left on.

    What comes before the first dropout is computed once. An image's draws depend on its place in
    the data set alone, not on its batch.

    Args:
        params, batch_stats: the weights.
        image: [B, H, W, 3], 0 to 255.
        index: [B], items of the data set.
        graph: of `state.sampling_graph`.
        preprocess: of the recipe.
        samples: N, passes.
        seed: of the draws.

    Returns:
        Scores [B N, h, w, K], image by image.

    Raises:
        InputError: if the network has no dropout.
    """
    modules = nnx.iter_modules(functional.merge(graph, params, batch_stats))
    if not any(isinstance(m, nnx.Dropout) and m.rate > 0 for _, m in modules):
        raise InputError("protocol samples: the network has no dropout, all passes are the same.")

    def of_image(image, index):
        image = image[None]

        def once(key):
            model = functional.merge(graph, params, batch_stats)
            return model(preprocess(image), rngs=nnx.Rngs(dropout=key), image=image)[0]

        key = jax.random.fold_in(jax.random.key(seed), index)
        return jax.vmap(once)(jax.random.split(key, samples))

    scores = jax.vmap(of_image)(image, index)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), scores)


def moments(logits: jax.Array, images: int) -> tuple[jax.Array, jax.Array]:
    """The mean and the variance of the softmax over passes.

    Args:
        logits: [B N, r, W, K], of `sampled`.
        images: B.

    Returns:
        float32 [B, r, W, K], the logarithm of the mean, and float32 [B, r, W], the variance over
        the N passes, averaged over the classes.
    """
    logits = logits.astype(jnp.float32).reshape(images, -1, *logits.shape[1:])
    p = jax.nn.softmax(logits, axis=-1)
    log_mean = jax.nn.logsumexp(jax.nn.log_softmax(logits, axis=-1), axis=1)
    return log_mean - jnp.log(p.shape[1]), jnp.mean(jnp.var(p, axis=1), axis=-1)


def eval_step(
    params: Any,
    batch_stats: Any,
    batch: dict[str, jax.Array],
    *,
    network: Callable[[Any, Any, jax.Array], Scores],
    judge: Callable[[jax.Array, jax.Array], dict[str, jax.Array]],
    blocks: int,
    input_scale: float,
    fixed_size: tuple[int, int],
    sampled: Callable[[Any, Any, jax.Array, jax.Array], Scores] | None = None,
    crf: Callable[..., tuple[jax.Array, jax.Array]] | None = None,
) -> dict[str, jax.Array]:
    """Predicts a batch, each image in one look, and counts.

    Args:
        params, batch_stats: the weights.
        batch: see `data.pipeline`; rows of weight 0 are predicted and not counted.
        network, judge: see the functions of these names.
        blocks: of rows, for upsampling and softmax.
        input_scale, fixed_size: the network sees the image at this scale or size: see `input_size`
            (bilinear, half-pixel centres); its scores are brought to the size of the label.
        sampled: in place of `network`, for several passes: see the function of this name.
        crf: (image, logits, mask) -> (logits, overflow), see `DenseCrf.batch`; judged in place of
            what the network says.

    Returns:
        `prediction` uint8 [B, H, W], and the counts of `judge`; of several passes also
        `uncertainty` float32 [B, H, W], see `moments`; with a CRF also what `refined` says, and of
        the network's own CRF what `Scores.wanted` does.
    """
    height, width = batch["label"].shape[1:]
    seen = input_size((height, width), input_scale, fixed_size)
    image = batch["image"].astype(jnp.float32)
    if seen != (height, width):
        image = resize.resized(image, seen, resize.Resize("half_pixel"))
    if sampled is None:
        scores = network(params, batch_stats, image)
    else:
        scores = sampled(params, batch_stats, image, batch["index"])
    label = jnp.where(batch["weight"][:, None, None] > 0, batch["label"], VOID)

    def block(logits, label, then):
        more = {}
        if sampled is not None:
            logits, variance = moments(logits, label.shape[0])
            more = {"uncertainty": variance}
        return more | then(logits, label)

    def over(scores, then, seen):
        return _of_image(row_blocks.over(then, scores, label, blocks=blocks, seen=seen), height)

    if crf is None:
        return over(scores, functools.partial(block, then=judge), seen) | scores.wanted()
    found = over(scores, functools.partial(block, then=_kept), seen) | scores.wanted()
    logits, more = refined(batch["image"], found.pop("logits"), label, batch["size"], crf)
    return found | more | over(Scores(logits, resize.Resize("half_pixel")), judge, None)


def _kept(logits: jax.Array, _) -> dict[str, jax.Array]:
    return {"logits": logits.astype(jnp.float32)}


def _of_image(found: dict[str, jax.Array], height: int) -> dict[str, jax.Array]:
    """What blocks of rows gave: pixels in order, counts summed."""
    return {
        key: row_blocks.join(value, height) if key in (*MAPS, "logits") else value.sum(0)
        for key, value in found.items()
    }


def refined(
    image: jax.Array, logits: jax.Array, label: jax.Array, size: jax.Array, crf: Callable
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What a CRF makes of scores, and what was there before.

    Args:
        image: uint8 [B, H, W, 3].
        logits: float32 [B, H, W, K].
        label: uint8 [B, H, W], classes or VOID.
        size: int32 [B, 2], of the images; what lies beyond is no part of them.
        crf: see `eval_step`.

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


def judge(
    logits: jax.Array,
    label: jax.Array,
    *,
    num_classes: int,
    class_weights: tuple[float, ...] | None,
) -> dict[str, jax.Array]:
    """Labels pixels and counts; rows and parts of images add up.

    Args:
        logits: [B, r, W, K].
        label: uint8 [B, r, W], classes or VOID.
        num_classes: K.
        class_weights: of the loss.

    Returns:
        `prediction` uint8 [B, r, W]; `confusion` int32 [B, K, K]; `loss` float32 [], summed;
        `pixels` int32 [], how many are labelled; `calibration` float32 [3, bins], see
        `calibration.counts`.
    """
    logits = logits.astype(jnp.float32)
    prediction = jnp.argmax(logits, axis=-1).astype(jnp.uint8)
    weights = None if class_weights is None else jnp.asarray(class_weights)
    loss = pixels.cross_entropy(logits, label, weights)
    valid = label != VOID
    confidence = jnp.exp(logits.max(-1) - jax.nn.logsumexp(logits, axis=-1))
    return {
        "prediction": prediction,
        "confusion": jax.vmap(lambda p, t: confusion.count(p, t, num_classes))(prediction, label),
        "loss": jnp.sum(loss),
        "pixels": jnp.sum(valid, dtype=jnp.int32),
        "calibration": calibration.counts(confidence, prediction == label, valid),
    }


def input_size(
    size: tuple[int, int], scale: float, fixed: tuple[int, int] = (0, 0)
) -> tuple[int, int]:
    """The size at which the network sees an image of `size`; never empty.

    `scale` is `config.input_scale`, `fixed` is `config.input_size`, which counts unless (0, 0).
    """
    if any(fixed):
        return tuple(fixed)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
