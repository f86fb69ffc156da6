"""The two kernels of the fully connected CRF over the pixels of an image, and their normalisation.

Krähenbühl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS
2011, equation 3. Positions are whole pixels from the top left, colours RGB of 0 to 255.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp

from segjax import arrays, contracts
from segjax.arrays import Size
from segjax.crf import gaussian, permutohedral
from segjax.errors import choose

NORMALIZATIONS = ("after", "before", "symmetric", "none", "mean")
SPATIAL = ("lattice", "gaussian")

_TINY = 1e-20  # added to sums, as in the code of the publication


@flax.struct.dataclass
class Filter:
    """A normalised kernel, which sends messages between all pixels in any number of channels.

    Attributes:
        operator: the kernel; it sums values over all pixels.
        before, after: float [N], factors of the pixels' values before and after the sum; None: 1.
    """

    operator: permutohedral.Lattice | gaussian.Gaussian
    before: jax.Array | None
    after: jax.Array | None

    def __call__(self, values: jax.Array) -> jax.Array:
        """float [N, C] -> [N, C]."""
        if self.before is not None:
            values = self.before[:, None] * values
        out = _sum_under(self.operator, values)
        return out if self.after is None else self.after[:, None] * out

    @property
    def overflow(self) -> jax.Array:
        """int32 []: the vertices that the lattice needs if they exceed its capacity, else 0."""
        if isinstance(self.operator, gaussian.Gaussian):
            return jnp.int32(0)
        return jnp.where(self.operator.needed > self.operator.capacity, self.operator.needed, 0)


def bilateral(
    image: jax.Array,
    theta_alpha: float | jax.Array,
    theta_beta: float | jax.Array,
    *,
    capacity: int,
    normalization: str,
    mask: jax.Array | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Filter:
    """The bilateral kernel on the lattice.

    exp(-|p_i - p_j|^2 / (2 alpha^2) - |I_i - I_j|^2 / (2 beta^2)) for positions p and colours I.

    Args:
        image: [H, W, 3], or grey, [H, W], not normalised: see `contracts.image`.
        theta_alpha: standard deviation in pixels.
        theta_beta: standard deviation in colour, in units of 0 to 255.
        capacity: capacity of the lattice in vertices.
        normalization: see `normalized`.
        mask: bool [H, W], the pixels of the image; None: all.
        dtype: type of the computation.

    Raises:
        InputError: if an array is not of its kind, or `normalization` is unknown.
    """
    size = arrays.image_size(contracts.real(image, "image", contracts.PICTURE))
    mask = _checked_mask(mask, size)
    image = contracts.image(image, inside=mask)
    colours = jnp.moveaxis(image.astype(dtype), -1, 0) / theta_beta
    places = _places(size, theta_alpha, dtype)
    features = jnp.concatenate([places, colours]).reshape(5, -1)
    flat = None if mask is None else mask.reshape(-1)
    return normalized(permutohedral.build(features, capacity, flat), normalization, flat)


def spatial(
    size: Size,
    theta_gamma: float | jax.Array,
    *,
    by: str,
    normalization: str,
    capacity: int | None = None,
    reach: int | None = None,
    mask: jax.Array | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Filter:
    """The spatial kernel, exp(-|p_i - p_j|^2 / (2 gamma^2)) for positions p.

    Without a mask it is the same for all images of a size.

    Args:
        size: (H, W).
        theta_gamma: standard deviation in pixels.
        by: "lattice", as in every implementation of the papers; or "gaussian", which is exact up to
            its reach and whose cost grows with the reach.
        normalization: see `normalized`.
        capacity: capacity of the lattice in vertices; None: a number that always suffices.
        reach: reach of "gaussian" in pixels: see `gaussian.build`.
        mask, dtype: as for `bilateral`.

    Raises:
        InputError: if `by` or `normalization` is unknown, or the mask is not of its kind.
    """
    choose("crf spatial", by, SPATIAL)
    mask = _checked_mask(mask, size)
    flat = None if mask is None else mask.reshape(-1)
    operator: permutohedral.Lattice | gaussian.Gaussian
    if by == "gaussian":
        there = jnp.ones(size, dtype) if mask is None else mask.astype(dtype)
        operator = gaussian.build(there, theta_gamma, reach)
    else:
        features = _places(size, theta_gamma, dtype).reshape(2, -1)
        if capacity is None:
            capacity = _enough(size, theta_gamma)
        operator = permutohedral.build(features, capacity, flat)
    return normalized(operator, normalization, flat)


def normalized(
    operator: permutohedral.Lattice | gaussian.Gaussian,
    normalization: str,
    mask: jax.Array | None = None,
) -> Filter:
    """A kernel with a normalisation, which turns its sums into messages.

    Krähenbühl, Koltun: Parameter Learning and Convergent Inference for Dense Random Fields, ICML
    2013, section 3.3, and the code of both papers.

    Args:
        operator: the kernel over N pixels. n_i is its sum over all pixels, seen from pixel i.
        normalization: "after": the sum is divided by n of the receiving pixel, which makes it a
            weighted mean (the code of NIPS 2011, DeepLab). "before": values are divided by n of the
            sending pixel. "symmetric": both, by the root of n (the default of pydensecrf). "none":
            the plain sum. "mean": the sum divided by the mean of n (the code of NIPS 2011 without
            normalisation).
        mask: bool [N], the pixels of the image; None: all.

    Raises:
        InputError: if the normalisation is unknown or the mask is not of its kind.
    """
    choose("crf normalization", normalization, NORMALIZATIONS)
    if mask is not None:
        mask = contracts.mask(mask, "mask", f"[{_pixels(operator)}]")
    if normalization == "none":
        return Filter(operator, None, None)
    dtype = _dtype(operator)
    ones = jnp.ones((_pixels(operator), 1), dtype)
    n = _sum_under(operator, ones)[:, 0]
    if mask is not None:
        n = jnp.where(mask, n, 1)  # other pixels neither send nor receive
    if normalization == "mean":
        counted = jnp.ones_like(n, bool) if mask is None else mask
        mean = jnp.sum(jnp.where(counted, n, 0)) / jnp.sum(counted)
        return Filter(operator, None, jnp.full_like(n, 1) / mean)
    if normalization == "symmetric":
        root = 1 / jnp.sqrt(n + _TINY)
        return Filter(operator, root, root)
    inverse = 1 / (n + _TINY)
    return Filter(operator, *((None, inverse) if normalization == "after" else (inverse, None)))


def _checked_mask(mask: jax.Array | None, size: Size) -> jax.Array | None:
    return None if mask is None else contracts.mask(mask, "mask", f"[{size[0]}, {size[1]}]")


def _enough(size: Size, theta: float | jax.Array) -> int:
    """A number of vertices that the spatial lattice cannot exceed.

    In units of the deviation, triangles have sides of 1, each vertex has an area of sqrt(3) / 2 and
    a cell of radius 1 / sqrt(3), and no vertex is further than 1 from a pixel of its triangles.
    """
    most = 3 * size[0] * size[1]
    if isinstance(theta, jax.Array):
        return most
    margin = 2 * (1 + 1 / math.sqrt(3))
    height, width = ((length - 1) / theta + margin for length in size)
    return min(most, math.ceil(2 / math.sqrt(3) * height * width))


def _places(size: Size, theta: float | jax.Array, dtype) -> jax.Array:
    """float [2, H, W]: x and y, in standard deviations."""
    x = jnp.broadcast_to(jnp.arange(size[1], dtype=dtype), size)
    y = jnp.broadcast_to(jnp.arange(size[0], dtype=dtype)[:, None], size)
    return jnp.stack([x, y]) / theta


def _sum_under(operator: permutohedral.Lattice | gaussian.Gaussian, values: jax.Array) -> jax.Array:
    if isinstance(operator, gaussian.Gaussian):
        return gaussian.apply(operator, values)
    return permutohedral.apply(operator, values)


def _pixels(operator: permutohedral.Lattice | gaussian.Gaussian) -> int:
    if isinstance(operator, gaussian.Gaussian):
        return operator.mask.size
    return operator.corners.shape[1]


def _dtype(operator: permutohedral.Lattice | gaussian.Gaussian):
    return (operator.mask if isinstance(operator, gaussian.Gaussian) else operator.weights).dtype
