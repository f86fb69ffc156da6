"""The fully connected CRF as a function of arrays: batched, differentiable, on the device.

Krähenbühl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS
2011. `DenseCrf` has Potts compatibility, and `PRESETS` holds the parameters of publications. Other
CRFs are built from `kernels` and `mean_field`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from segjax import arrays, contracts, registry
from segjax.arrays import Size
from segjax.crf import kernels, mean_field, permutohedral
from segjax.errors import InputError, choose

KEY = "config.eval.crf"
UNARIES = ("logits", "probabilities")
"""Forms of the unary term: see `DenseCrf.unary`."""

# Lattice capacities in vertices per pixel. A pixel touches at most 6, the corners of its simplex.
_SHARES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


@flax.struct.dataclass
class DenseCrf:
    """A fully connected CRF over the pixels of an image.

    Weights and deviations are leaves: they can be traced, differentiated by and stacked for `vmap`.

    Attributes:
        w1: weight of the bilateral kernel, in nats; `w(1)` of the paper, equation 3.
        theta_alpha: standard deviation of the bilateral kernel in pixels.
        theta_beta: standard deviation of the bilateral kernel in colour, in units of 0 to 255.
        w2: weight of the spatial kernel, in nats; `w(2)` of the paper.
        theta_gamma: standard deviation of the spatial kernel in pixels.
        iterations: number of mean-field iterations.
        normalization: normalisation of both kernels, see `kernels.normalized`.
        spatial: form of the spatial kernel, "lattice" or "gaussian": see `kernels.spatial`.
        unary: "logits": the network's logits; "probabilities": their log-probabilities, none of
            them below log 1e-5, as in pydensecrf's `unary_from_softmax`.
        relaxation: see `mean_field.infer`.
        name: name of the preset, with a hash of the changes if there are any.
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
        """Refines a network's scores for one image.

        Args:
            image: [H, W, 3], or grey, [H, W]: see `contracts.image`.
            logits: [H, W, K], numbers; -infinite for a class that a pixel cannot have. The
                computation is in float32, or in their type if it is wider.
            capacity: vertices of the bilateral lattice, see `permutohedral.build`.
            mask: bool [H, W], the pixels of the image. Others neither send nor receive messages and
                keep their logits. None: all pixels.
            known: bool [H, W], pixels with a unary term. None: all pixels.
            near: the result of `spatial_filter` for images without a mask; None: it is built here.

        Returns:
            float [H, W, K], logits whose softmax is the marginals; NaN within the mask if the
            lattice overflowed.
            int32 [], the capacity that the image needs if the lattice overflowed, else 0.

        Raises:
            InputError: if an array is not of its kind; see `contracts`.
        """
        image, logits, mask, known = _checked(image, logits, mask, known)
        if near is None:
            near = self.spatial_filter(arrays.image_size(logits), logits.dtype, mask)
        far = kernels.bilateral(
            image,
            self.theta_alpha,
            self.theta_beta,
            capacity=capacity,
            normalization=self.normalization,
            mask=mask,
            dtype=logits.dtype,
        )
        unary = logits.reshape(-1, logits.shape[2])
        if self.unary == "probabilities":
            unary = mean_field.logits_of_probabilities(jax.nn.softmax(unary, axis=-1))
        for pixels in (known, mask):  # 0 times a number that is not finite would spread as NaN
            if pixels is not None:
                unary = jnp.where(pixels.reshape(-1, 1), unary, 0)
        result = mean_field.infer(
            unary,
            (far, near),
            (self.w1, self.w2),
            iterations=self.iterations,
            relaxation=self.relaxation,
        )
        result = result.reshape(logits.shape)
        if mask is not None:
            result = jnp.where(mask[..., None], result, logits)
        return result, far.overflow

    def batch(
        self,
        image: jax.Array,
        logits: jax.Array,
        mask: jax.Array | None = None,
        *,
        capacity: int,
    ) -> tuple[jax.Array, jax.Array]:
        """Refines the scores of a batch, arguments and results as in `__call__`.

        [B, H, W, 3], [B, H, W, K], bool [B, H, W] or None -> [B, H, W, K], int32 [B].

        Raises:
            InputError: as `__call__` does.
        """
        image, logits, mask, _ = _checked(image, logits, mask, None, lead="B, ")
        near = None
        if mask is None:
            near = self.spatial_filter(arrays.map_size(logits), logits.dtype)

        def refined(row):
            image, logits, mask = row
            return self(image, logits, capacity=capacity, mask=mask, near=near)

        return by_image(refined, (image, logits, mask))

    def spatial_filter(
        self,
        size: Size,
        dtype: jax.typing.DTypeLike = jnp.float32,
        mask: jax.Array | None = None,
    ) -> kernels.Filter:
        """The spatial kernel of size (H, W); without a mask one serves all images of that size."""
        return kernels.spatial(
            size,
            self.theta_gamma,
            by=self.spatial,
            normalization=self.normalization,
            mask=mask,
            dtype=dtype,
        )

    def to_json(self) -> dict[str, Any]:
        """Name of every field -> its value."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def _checked(
    image: jax.Array,
    logits: jax.Array,
    mask: jax.Array | None,
    known: jax.Array | None,
    *,
    lead: str = "",
) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
    """The arrays of a CRF, checked; logits in the type of the computation.

    That is float32 or wider: messages are sums over all pixels.

    Args:
        image, logits, mask, known: see `DenseCrf`.
        lead: the leading axes of all of them.
    """
    form = f"[{lead}H, W, K]"
    size = ", ".join(map(str, contracts.real(logits, "logits", form).shape[:-1]))
    if mask is not None:
        mask = contracts.mask(mask, "mask", f"[{size}]")
    if known is not None:
        known = contracts.mask(known, "known", f"[{size}]")
    image = contracts.image(image, form=f"[{size}, 3] or [{size}]", inside=mask)
    return image, contracts.scores(logits, "logits", form, inside=(mask, known)), mask, known


def by_image(fn: Callable[[Any], Any], rows: Any) -> Any:
    """Applies `fn` to every image of a batch: arrays [B, ...] in, arrays [B, ...] out.

    A CPU takes one image after the other, so that its tables stay in the cache (twice as fast).
    """
    return jax.lax.platform_dependent(
        rows, cpu=functools.partial(jax.lax.map, fn), default=jax.vmap(fn)
    )


@dataclasses.dataclass(frozen=True)
class Refinement:
    """A CRF for batches of images, ready to be compiled.

    Attributes:
        crf: the CRF; its parameters are numbers, not arrays.
        capacity: vertices of the bilateral lattice of an image.
        filled: whether images may be smaller than their canvas; if not, masks are ignored.
    """

    crf: DenseCrf
    capacity: int
    filled: bool

    def __call__(
        self, image: jax.Array, logits: jax.Array, mask: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """See `DenseCrf.batch`."""
        mask = mask if self.filled else None
        return self.crf.batch(image, logits, mask, capacity=self.capacity)


class LatticeCapacity:
    """The capacity of the lattice, grown to fit every image so far.

    Attributes:
        share: capacity in vertices per pixel; takes few values, so that few programs are compiled.
    """

    def __init__(self, share: float = 1.0):
        self.share = share

    def vertices(self, size: Size) -> int:
        """The capacity in vertices for an image of size (H, W)."""
        return max(1, math.ceil(self.share * size[0] * size[1]))

    def grow(self, size: Size, needed: int) -> None:
        """Grows the capacity for an image of size (H, W) that needs `needed` vertices.

        Raises:
            InputError: if no capacity would suffice.
        """
        if needed == permutohedral.OUT_OF_RANGE:
            raise InputError(
                f"{KEY}: theta_alpha or theta_beta is too small for {size[0]} x {size[1]} pixels."
            )
        fits = (share for share in _SHARES if needed <= share * size[0] * size[1])
        self.share = max(self.share, next(fits))


PRESETS = {
    # Chen et al., ICLR 2015: LargeFOV, VOC 2012, the release's script.
    "deeplab_v1": DenseCrf(4.0, 49.0, 5.0, 3.0, 3.0),
    # Chen et al., PAMI 2018: ResNet-101, VOC 2012; two ports agree.
    "deeplab_v2_resnet101": DenseCrf(4.0, 67.0, 3.0, 3.0, 1.0),
    # The example in the README of pydensecrf.
    "pydensecrf_example": DenseCrf(
        10.0, 80.0, 13.0, 3.0, 3.0, iterations=5, normalization="symmetric", unary="probabilities"
    ),
    # Zheng et al., ICCV 2015: initial parameters. Training takes 5 iterations, evaluation 10.
    "crf_rnn": DenseCrf(5.0, 160.0, 3.0, 3.0, 3.0),
}
PRESETS = {name: dataclasses.replace(preset, name=name) for name, preset in PRESETS.items()}


def build(preset: str, **changes: Any) -> DenseCrf | None:
    """A CRF of PRESETS with some fields changed; None for "" without changes.

    Raises:
        InputError: if the preset or a field is unknown or a value is not allowed.
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
                raise InputError(f"{KEY}.{field}: {value!r}; it must be {allowed}.")
    return crf


def parse(text: str) -> DenseCrf | None:
    """The CRF that "preset" or "preset, key=value, ..." describes; None for "".

    Raises:
        InputError: if the text has another form, or as `build` does.
    """
    preset, changes = registry.parse(KEY, text)
    return build(preset, **changes)
