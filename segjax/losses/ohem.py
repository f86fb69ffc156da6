"""Online hard example mining: cross-entropy over the hard pixels alone."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from segjax.data.spec import VOID
from segjax.losses import cross_entropy, pixels
from segjax.losses.options import check_share
from segjax.losses.place import Place

_ONE = 0x3F800000  # the bits of 1.0, as float32


@dataclasses.dataclass(frozen=True)
class Ohem:
    """The cross-entropy of the pixels that `hard_pixels` keeps.

    A batch that is split in time (`config.accumulate`) gives the hardest share of each part.

    Attributes:
        ohem_threshold: a truth as likely as that, or less, is hard; 0 to 1.
        ohem_share: of the labelled pixels, the hardest that are kept in any case; 0 to 1.
        label_smoothing: as of `CrossEntropy`.
    """

    ohem_threshold: float = 0.7
    ohem_share: float = 1 / 16
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for option in ("ohem_threshold", "ohem_share", "label_smoothing"):
            check_share(option, getattr(self, option))

    def __call__(self, place: Place) -> tuple[jax.Array, jax.Array]:
        """Summed loss and count: float32 [] and float32 []."""
        hard = hard_pixels(place, threshold=self.ohem_threshold, share=self.ohem_share)
        of_hard = dataclasses.replace(place, label=hard)
        return cross_entropy.CrossEntropy(self.label_smoothing)(of_hard)


def hard_pixels(place: Place, *, threshold: float, share: float) -> jax.Array:
    """The label with VOID in place of the easy pixels.

    A pixel is hard if the probability of its truth is at most `threshold`, or among the lowest
    `share` of the labelled pixels of the batch (Shrivastava et al., CVPR 2016, as the segmentation
    libraries do it). Ties with the last of them are kept, too.

    Returns:
        uint8 [B, H, W], VOID where easy.
    """

    def of_truth(logits: jax.Array, label: jax.Array) -> jax.Array:
        valid, target = pixels.targets(label)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), target)
        return jnp.where(valid, jnp.exp(-nll), 2.0)  # VOID lies behind all

    probability = jax.lax.stop_gradient(place.pixels(of_truth))
    valid = place.label != VOID
    wanted = jnp.ceil(share * jnp.sum(valid, dtype=jnp.int32)).astype(jnp.int32)
    hard = probability <= jnp.maximum(threshold, _lowest(probability, wanted))
    return jnp.where(valid & hard, place.label, jnp.uint8(VOID))


def _lowest(x: jax.Array, count: jax.Array) -> jax.Array:
    """The count-th lowest of numbers from 0 on, at most 1: by bisection, as a sort is not sharded.

    Bits of floats from 0 on are in the order of the floats.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) // 2
        enough = jnp.sum(bits <= middle, dtype=jnp.int32) >= count
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    _, high = jax.lax.fori_loop(0, 31, halve, (jnp.int32(0), jnp.int32(_ONE)))
    return jax.lax.bitcast_convert_type(high, jnp.float32)
