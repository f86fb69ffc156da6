"""Bilinear resizes of every convention as small matrices: no gathers, no atomics, the same bits.

A bilinear resize is separable: `rows @ image @ cols.T`, with matrices that depend on the sizes
alone. They are computed in numpy while a program is traced and become its constants.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from segjax import arrays
from segjax.arrays import Size
from segjax.models import separable

CONVENTIONS = ("half_pixel", "corners", "transposed")


@dataclasses.dataclass(frozen=True)
class Resize:
    """A bilinear resize from one grid to another, along rows and along columns.

    Attributes:
        convention: "half_pixel": output j lies at (j + 0.5) / factor - 0.5 of the input, clamped to
            it (OpenCV, PyTorch with align_corners=False; no antialiasing). "corners": the centres
            of the first pixels coincide, and without a factor those of the last (PyTorch with
            align_corners=True; Caffe's Interp; TensorFlow's code of DeepLab). "transposed": the
            transposed convolution of Long et al. 2015, kernel 2 x factor, stride factor, no
            padding, bilinear weights; zero outside.
        factor: output pixels per input pixel; None: output size / input size, or for "corners"
            (output size - 1) / (input size - 1).
        offset: output pixels that are cropped at the start, one number for both axes or (rows,
            columns). They may be fractions and negative, except for "transposed", which takes one
            whole number.

    Raises:
        ValueError: if the convention is unknown, or "transposed" has no factor or a fraction as
            its offset.
    """

    convention: str
    factor: int | None = None
    offset: float | tuple[float, float] = 0

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            raise ValueError(
                f"Unknown convention {self.convention!r}; known: {', '.join(CONVENTIONS)}."
            )
        if self.convention == "transposed" and self.factor is None:
            raise ValueError('"transposed" needs a whole factor.')
        whole = not isinstance(self.offset, tuple) and self.offset == int(self.offset)
        if self.convention == "transposed" and not whole:
            raise ValueError(f'"transposed" crops whole pixels, got offset {self.offset}.')

    def continues(self, other: "Resize") -> bool:
        """Whether this resize and then `other` are one stretch: from grid to image in one step.

        Bilinear interpolation of interpolated values would be smoother than either.
        """
        plain = self.factor is None and self.offset == 0
        return plain and self == other

    def matrices(self, size_in: Size, size_out: Size) -> tuple[np.ndarray, np.ndarray]:
        """The matrices of rows and columns for `apply`: float32 [H, h] and [W, w].

        Args:
            size_in: (h, w).
            size_out: (H, W).
        """
        rows, cols = (self.matrix(size_in[axis], size_out[axis], axis) for axis in (0, 1))
        return rows, cols

    def matrix(self, size_in: int, size_out: int, axis: int = 0) -> np.ndarray:
        """The matrix of one axis, 0 for rows or 1 for columns: float32 [size_out, size_in].

        Its rows sum to one, except for "transposed".
        """
        target, source = np.arange(size_out), np.arange(size_in)
        return self.weights(target, source, size_in, size_out, axis)

    def weights(
        self, target: np.ndarray, source: np.ndarray, size_in: int, size_out: int, axis: int = 0
    ) -> np.ndarray:
        """A part of `matrix`, computed without the rest of it.

        Args:
            target: int [r], the rows; rows beyond the output repeat its border.
            source: int [c], the columns; columns beyond the input get 0.
            size_in, size_out, axis: see `matrix`.

        Returns:
            float32 [r, c].
        """
        if self.convention != "transposed" or self.factor is None:  # "transposed" has a factor
            position = self.positions(target, size_in, size_out, axis)[:, None]
            weight = np.maximum(0, 1 - np.abs(position - source))
        else:
            kernel = bilinear_kernel(2 * self.factor)
            tap = (self._offset(axis) + target[:, None] - self.factor * source).astype(np.int64)
            weight = np.where(
                (tap >= 0) & (tap < 2 * self.factor), kernel[np.clip(tap, 0, kernel.size - 1)], 0
            )
        return weight.astype(np.float32)

    def positions(
        self, target: np.ndarray, size_in: int, size_out: int, axis: int = 0
    ) -> np.ndarray:
        """Positions of output pixels in the input, clamped to it: int [r] -> float64 [r].

        Not for "transposed".
        """
        position = self._position(self._offset(axis) + target, size_in, size_out)
        return np.clip(position, 0, size_in - 1)

    def centres(self, size_in: int, size_out: int, axis: int = 0) -> np.ndarray:
        """The output pixel nearest to each input pixel: int [size_in]."""
        at = np.arange(size_in)
        if self.convention == "corners":
            grow = (size_out - 1) / max(size_in - 1, 1) if self.factor is None else self.factor
            position = at * grow
        else:
            factor = size_out / size_in if self.factor is None else self.factor
            position = (at + 0.5) * factor - 0.5
            position += factor / 2 if self.convention == "transposed" else 0  # where kernels start
        position = position - self._offset(axis)
        return np.clip(np.floor(position + 0.5).astype(int), 0, size_out - 1)

    def _offset(self, axis: int) -> float:
        return self.offset[axis] if isinstance(self.offset, tuple) else self.offset

    def _position(self, target: np.ndarray, size_in: int, size_out: int) -> np.ndarray:
        """Positions of output pixels in the input, not clamped."""
        if self.convention == "corners":
            shrink = (
                (size_in - 1) / max(size_out - 1, 1) if self.factor is None else 1 / self.factor
            )
            return target * shrink
        factor = size_out / size_in if self.factor is None else self.factor
        return (target + 0.5) / factor - 0.5


def bilinear_kernel(size: int) -> np.ndarray:
    """The bilinear kernel of the FCN release along one axis, symmetric: float64 [size]."""
    half = (size + 1) // 2
    centre = half - 1 if size % 2 else half - 0.5
    return 1 - np.abs(np.arange(size) - centre) / half


def apply(
    x: jax.Array,
    rows: np.ndarray,
    cols: np.ndarray,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> jax.Array:
    """Resizes maps by two matrices: [B, h, w, C], [H, h], [W, w] -> [B, H, W, C] of a type.

    The weights have full float32 precision: by default accelerators round to 8 or 10 bits.
    """
    return separable.weighed(x, rows, cols, dtype)


def resized(
    x: jax.Array, size: Size, rule: Resize, dtype: jax.typing.DTypeLike = jnp.float32
) -> jax.Array:
    """Resizes maps by a rule: [B, h, w, C] -> [B, *size, C] of a type."""
    return apply(x, *rule.matrices(arrays.map_size(x), size), dtype)


def apply_or_crop(x: jax.Array, rows: np.ndarray, cols: np.ndarray) -> jax.Array:
    """`apply`, but a crop without products if the result's pixels are those of the map."""
    if keeps_pixels(rows, cols):
        return x[:, : rows.shape[0], : cols.shape[0]].astype(jnp.float32)
    return apply(x, rows, cols)


def keeps_pixels(rows: np.ndarray, cols: np.ndarray) -> bool:
    """Whether `apply` with these matrices would only crop a map at its end."""
    return all(np.array_equal(matrix, np.eye(*matrix.shape)) for matrix in (rows, cols))
