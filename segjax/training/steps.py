"""The training step: a pure function of arrays."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from segjax import losses, strips
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.models import functional
from segjax.network import Model, Network
from segjax.training import augment, state
from segjax.training.optim import Optimizer

_Sums = tuple[Any, jax.Array, jax.Array, Any]  # gradients, loss, count, batch statistics
_More = tuple[jax.Array, Any, dict[str, jax.Array]]  # count, batch statistics, CRF scalars


def train_step(
    ts: state.TrainState,
    batch: dict[str, jax.Array],
    *,
    model: Model,
    augmentation: augment.Augmentation,
    seed: int,
    optimizer: Optimizer,
    loss: losses.Loss,
    accumulate: int,
    ema_decay: float,
    remat: str,
) -> tuple[state.TrainState, dict[str, jax.Array]]:
    """One training step.

    Args:
        ts: the state; donate it.
        batch: see `data.pipeline`; `image` uint8 [B, H, W, 3], `label` uint8 [B, H, W].
        model: the static part of the network.
        augmentation: augmentation of one example.
        seed: seed of augmentation and dropout.
        optimizer, loss: the optimiser and the loss.
        accumulate: number of parts that the batch is split into; gradients and counts are summed.
        ema_decay: decay of averaged weights, 0 to 1; 0 keeps none.
        remat: one of `models.remat.RULES`.

    Returns:
        The new state, or the old one with `skipped` + 1 if the loss or the gradient is not finite.
        Scalars: loss, grad_norm, lr, valid (share of labelled pixels), skipped; with a CRF layer
        also those of `Scores.crf_scalars`.
    """
    key_augment, key_dropout = jax.random.split(jax.random.key(seed))
    key_dropout = jax.random.fold_in(key_dropout, ts.step)
    image, label = augment.batch(key_augment, batch, augmentation, model.preprocess.mean)
    image, label = strips.split(image), strips.split(label)

    (grads, total, count, batch_stats), crf_scalars = _summed_gradients(
        _Part(model, loss, remat), ts, (image, label), key_dropout, accumulate
    )
    divisor = loss.divisor(count)
    grads = jax.tree.map(lambda g: g / divisor, grads)
    grad_norm = optax.tree.norm(grads)
    lr = optimizer.schedule(ts.step)
    new = _updated(ts, grads, batch_stats, lr, optimizer, ema_decay)
    finite = jnp.isfinite(total) & jnp.isfinite(grad_norm)
    kept: state.TrainState = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, ts)
    skipped = jnp.where(finite, 0, ts.skipped + 1)
    scalars = {
        "loss": total / divisor,
        "grad_norm": grad_norm,
        "lr": lr,
        "valid": jnp.sum(label != VOID, dtype=jnp.int32) / label.size,
        "skipped": skipped,
    }
    return dataclasses.replace(kept, step=ts.step + 1, skipped=skipped), scalars | crf_scalars


def batch_statistics(
    network: Network,
    batch: dict[str, jax.Array],
    *,
    augmentation: augment.Augmentation,
    seed: int,
) -> Any:
    """Batch norm statistics of a single augmented batch, in the form of `batch_stats`.

    Raises:
        InputError: if the network has no batch norm.
    """
    model = network.model
    key_augment, key_dropout = jax.random.split(jax.random.key(seed))
    image, _ = augment.batch(key_augment, batch, augmentation, model.preprocess.mean)
    image = strips.split(image)
    module = functional.merge(model.graphs.training, network.params, network.batch_stats)
    norms = [m for _, m in nnx.iter_modules(module) if isinstance(m, nnx.BatchNorm)]
    if not norms:
        raise InputError("--statistics: the network has no batch norm.")
    for norm in norms:
        norm.momentum = 0.0  # ignores the running averages
    module(model.preprocess(image), rngs=nnx.Rngs(dropout=key_dropout), image=image)
    return functional.plain(nnx.state(module, nnx.BatchStat))


@dataclasses.dataclass(frozen=True)
class _Part:
    """The loss of a part of a batch: image [b, H, W, 3], label [b, H, W] and the key of dropout."""

    model: Model
    loss: losses.Loss
    remat: str

    def summed_loss(
        self, params: Any, batch_stats: Any, counts: jax.Array | None, *rows: jax.Array
    ) -> tuple[jax.Array, _More]:
        """The sum, and what is not differentiated. `counts`: see `Loss.total`."""
        module, outputs = self._outputs(params, batch_stats, *rows)
        total, count = self.loss.total(outputs, rows[1], counts)
        crf_scalars = outputs[0].crf_scalars()
        return total, (count, functional.plain(nnx.state(module, nnx.BatchStat)), crf_scalars)

    def counts(self, params: Any, batch_stats: Any, *rows: jax.Array) -> jax.Array:
        """See `Loss.counts`. Most losses count labels: the compiler then drops the network."""
        return self.loss.counts(self._outputs(params, batch_stats, *rows)[1], rows[1])

    def _outputs(self, params: Any, batch_stats: Any, *rows: jax.Array) -> Any:
        image, _, key = rows
        module: Any = functional.merge(self.model.graphs.training, params, batch_stats)
        module.remat = self.remat
        rngs = nnx.Rngs(dropout=key)
        return module, module(self.model.preprocess(image), rngs=rngs, image=image)


def _summed_gradients(
    of_part: _Part,
    ts: state.TrainState,
    rows: tuple[jax.Array, ...],
    key: jax.Array,
    accumulate: int,
) -> tuple[_Sums, dict[str, jax.Array]]:
    """Sums over the parts of a batch.

    Returns:
        Summed gradients, loss and count, and the last batch statistics.
        The maxima of `Scores.crf_scalars`.
    """

    counts: jax.Array | None = None

    def part(carry: _Sums, rows: tuple[jax.Array, ...]) -> tuple[_Sums, dict[str, jax.Array]]:
        grads, total, count, batch_stats = carry
        (part_total, (part_count, batch_stats, crf_scalars)), part_grads = jax.value_and_grad(
            of_part.summed_loss, has_aux=True
        )(ts.params, batch_stats, counts, *rows)
        grads = jax.tree.map(jnp.add, grads, part_grads)
        return (grads, total + part_total, count + part_count, batch_stats), crf_scalars

    zeros = jax.tree.map(jnp.zeros_like, ts.params)
    carry = (zeros, jnp.zeros(()), jnp.zeros(()), ts.batch_stats)
    if accumulate == 1:
        return part(carry, (*rows, key))
    # Every n-th row, so that each device keeps its rows in every part.
    parts = [x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1) for x in rows]
    parts.append(jax.random.split(key, accumulate))
    counts_of = jax.jit(of_part.counts)  # traced once for both uses
    first = [x[0] for x in parts]
    if jax.eval_shape(counts_of, ts.params, ts.batch_stats, *first).size > 1:
        # Each has its own divisor, which the parts must know beforehand.
        by_part = jax.lax.map(lambda rows: counts_of(ts.params, ts.batch_stats, *rows), parts)
        counts = by_part.sum(0)
    carry, crf_scalars = jax.lax.scan(part, carry, tuple(parts))
    return carry, jax.tree.map(jnp.max, crf_scalars)


def _updated(
    ts: state.TrainState,
    grads: Any,
    batch_stats: Any,
    lr: jax.Array,
    optimizer: Optimizer,
    ema_decay: float,
) -> state.TrainState:
    updates, opt_state = optimizer.tx.update(grads, ts.opt_state, ts.params)
    params = jax.tree.map(lambda p, u: p - lr * u, ts.params, updates)
    ema = ts.ema
    if ema_decay:
        # The decay is low at first, so that the average forgets the random initial weights.
        decay = jnp.minimum(ema_decay, (1 + ts.step) / (10 + ts.step))
        now = {"params": params, "batch_stats": batch_stats}
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, now)
    return dataclasses.replace(
        ts, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema
    )
