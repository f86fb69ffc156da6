"""The fully connected CRF as a function of arrays: batched, differentiable, on the device.

Krähenbühl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS
2011. `DenseCrf` is one with Potts compatibility, `PRESETS` those of the publications; `kernels` and
`mean_field` are what others are put together from.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from segjax import registry
from segjax.crf import kernels, mean_field, permutohedral
from segjax.errors import InputError, choose

KEY = "config.eval.crf"
UNARIES = ("logits", "probabilities")

_SHARES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # 6 corners a pixel: no lattice needs more


@flax.struct.dataclass
class DenseCrf:
    """A fully connected CRF over the pixels of an image.

    Weights and deviations are leaves: they can be traced, differentiated by and stacked for `vmap`.

    Attributes:
        w1: weight of the bilateral kernel, in nats; `w(1)` of the paper, equation 3.
        theta_alpha: its deviation in pixels.
        theta_beta: its deviation in colour, units of 0 to 255.
        w2: weight of the spatial kernel.
        theta_gamma: its deviation in pixels.
        iterations: of mean field.
        normalization: of both kernels, see `kernels.normalized`.
        spatial: how the spatial kernel is summed, see `kernels.spatial`.
        unary: "logits": what the network says; "probabilities": the same, but no probability is
            below 1e-5, as pydensecrf's `unary_from_softmax` has it.
        relaxation: see `mean_field.infer`.
        name: of the preset, and a mark of what differs from it.
    """

    w1: float | jax.Array
    theta_alpha: float | jax.Array
    theta_beta: float | jax.Array
    w2: float | jax.Array
    theta_gamma: float | jax.Array
    iterations: int = flax.struct.field(pytree_node=False, default=10)
    normalization: str = flax.struct.field(pytree_node=False, default="after")
    spatial: str = flax.struct.field(pytree_node=False, default="lattice")
    unary: str = flax.struct.field(pytree_node=False, default="logits")
    relaxation: float = flax.struct.field(pytree_node=False, default=1.0)
    name: str = flax.struct.field(pytree_node=False, default="")

    def __call__(
        self,
        image: jax.Array,
        logits: jax.Array,
        *,
        capacity: int,
        mask: jax.Array | None = None,
        known: jax.Array | None = None,
        near: kernels.Filter | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """What the CRF makes of a network's scores.

        Args:
            image: uint8 or float [H, W, 3], RGB of 0 to 255.
            logits: float [H, W, K]; float32 at least is what is computed in.
            capacity: vertices of the bilateral lattice, see `permutohedral.build`.
            mask: bool [H, W], pixels that are there: what lies outside an image says nothing, hears
                nothing, and keeps its logits. None: all.
            known: bool [H, W], pixels whose logits count; the others have no unary term. None: all.
            near: of `spatial_filter`, if it is there already; without a mask.

        Returns:
            float [H, W, K], logits whose softmax are the marginals; NaN within the mask, if there
            was no room.
            int32 [], the capacity that would do then, else 0.
        """
        logits = logits.astype(_dtype(logits))
        size, classes = logits.shape[:2], logits.shape[2]
        kind = {"normalization": self.normalization, "mask": mask, "dtype": logits.dtype}
        if near is None:
            near = kernels.spatial(size, self.theta_gamma, by=self.spatial, **kind)
        far = kernels.bilateral(image, self.theta_alpha, self.theta_beta, capacity=capacity, **kind)
        unary = logits.reshape(-1, classes)
        if self.unary == "probabilities":
            unary = mean_field.logits_of_probabilities(jax.nn.softmax(unary, axis=-1))
        for said in (known, mask):  # nothing times what is not finite would be heard
            if said is not None:
                unary = jnp.where(said.reshape(-1, 1), unary, 0)
        found = mean_field.infer(
            unary,
            (far, near),
            (self.w1, self.w2),
            iterations=self.iterations,
            relaxation=self.relaxation,
        )
        found = found.reshape(logits.shape)
        if mask is not None:
            found = jnp.where(mask[..., None], found, logits)
        return found, far.overflow

    def batch(
        self,
        image: jax.Array,
        logits: jax.Array,
        mask: jax.Array | None = None,
        *,
        capacity: int,
    ) -> tuple[jax.Array, jax.Array]:
        """The same of a batch: [B, H, W, 3], [B, H, W, K], [B, H, W] -> [B, H, W, K], int32 [B]."""
        near = self.spatial_filter(logits.shape[1:3], _dtype(logits)) if mask is None else None

        def one(row):
            image, logits, mask = row
            return self(image, logits, capacity=capacity, mask=mask, near=near)

        return by_image(one, (image, logits, mask))

    def spatial_filter(self, size: tuple[int, int], dtype=jnp.float32) -> kernels.Filter:
        """The spatial kernel of whole images of a size: the same for all, to be built once."""
        return kernels.spatial(
            size, self.theta_gamma, by=self.spatial, normalization=self.normalization, dtype=dtype
        )

    def to_json(self) -> dict[str, Any]:
        """Every field and its value."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def _dtype(logits: jax.Array):
    """No less than float32: messages are sums over all pixels."""
    return jnp.promote_types(logits.dtype, jnp.float32)


def by_image(fn: Callable[[Any], Any], rows: Any) -> Any:
    """`fn` of every image of a batch: arrays [B, ...] in, arrays [B, ...] out.

    On a CPU one image after the other, whose tables then stay in the cache (twice as fast).
    """
    return jax.lax.platform_dependent(
        rows, cpu=functools.partial(jax.lax.map, fn), default=jax.vmap(fn)
    )


@dataclasses.dataclass(frozen=True)
class Refinement:
    """A CRF of a batch, ready to be compiled.

    Attributes:
        crf: whose parameters are numbers.
        capacity: vertices of a lattice.
        filled: whether images may be smaller than their canvas.
    """

    crf: DenseCrf
    capacity: int
    filled: bool

    def __call__(self, image, logits, mask) -> tuple[jax.Array, jax.Array]:
        """See `DenseCrf.batch`."""
        mask = mask if self.filled else None
        return self.crf.batch(image, logits, mask, capacity=self.capacity)


class Room:
    """How many vertices lattices have room for: enough for every image so far.

    Attributes:
        share: vertices per pixel; of a few sizes, so that there are few programs.
    """

    def __init__(self, share: float = 1.0):
        self.share = share

    def capacity(self, size: tuple[int, int]) -> int:
        """For images of a size."""
        return max(1, math.ceil(self.share * size[0] * size[1]))

    def grow(self, size: tuple[int, int], wanted: int) -> None:
        """Makes room for `wanted` vertices of an image of a size.

        Raises:
            InputError: if no room would be enough.
        """
        if wanted == permutohedral.OUT_OF_RANGE:
            raise InputError(
                f"{KEY}: theta_alpha or theta_beta is too small for {size[0]} x {size[1]} pixels."
            )
        fits = (share for share in _SHARES if wanted <= share * size[0] * size[1])
        self.share = max(self.share, next(fits))


PRESETS = {
    # Chen et al., ICLR 2015: LargeFOV, VOC 2012, the release's script.
    "deeplab_v1": DenseCrf(4.0, 49.0, 5.0, 3.0, 3.0),
    # Chen et al., PAMI 2018: ResNet-101, VOC 2012; two ports agree.
    "deeplab_v2_resnet101": DenseCrf(4.0, 67.0, 3.0, 3.0, 1.0),
    # The example of pydensecrf's README.
    "pydensecrf_example": DenseCrf(
        10.0, 80.0, 13.0, 3.0, 3.0, iterations=5, normalization="symmetric", unary="probabilities"
    ),
    # Zheng et al., ICCV 2015: the start of the training; 5 iterations there, 10 afterwards.
    "crf_rnn": DenseCrf(5.0, 160.0, 3.0, 3.0, 3.0),
}
PRESETS = {name: one.replace(name=name) for name, one in PRESETS.items()}


def build(preset: str, **changes: Any) -> DenseCrf | None:
    """One of PRESETS, with some of its fields changed; "" is none.

    Raises:
        InputError: on an unknown preset or field, or a value that is not allowed.
    """
    if not preset and not changes:
        return None
    crf = registry.changed(KEY, preset, changes, PRESETS)
    for field, known in (
        ("normalization", kernels.NORMALIZATIONS),
        ("spatial", kernels.SPATIAL),
        ("unary", UNARIES),
    ):
        choose(f"{KEY}.{field}", getattr(crf, field), known)
    for fields, fits, allowed in (
        (("w1", "w2"), lambda x: x >= 0, "a number, 0 or more"),
        (("theta_alpha", "theta_beta", "theta_gamma"), lambda x: x > 0, "a number above 0"),
        (("relaxation",), lambda x: 0 < x <= 1, "above 0 and at most 1"),
        (("iterations",), lambda x: isinstance(x, int) and x >= 0, "a whole number, 0 or more"),
    ):
        for field in fields:
            value = getattr(crf, field)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and fits(value)):
                raise InputError(f"{KEY}.{field}: {value!r}; it is {allowed}.")
    return crf


def parse(text: str) -> DenseCrf | None:
    """Reads "preset" or "preset, key=value, ..."; "" is none. Raises as `build` does."""
    preset, changes = registry.parse(KEY, text)
    return build(preset, **changes)
