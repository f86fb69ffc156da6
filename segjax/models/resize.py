"""Every resize convention, as small matrices: no gather, no atomics, the same bits every time.

A bilinear resize is separable: `rows @ image @ cols.T`, with matrices that depend on the sizes
alone. They are made in numpy while the program is traced and become constants of it.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

CONVENTIONS = ("half_pixel", "transposed")


@dataclasses.dataclass(frozen=True)
class Resize:
    """How the rows (or columns) of one grid become those of another.

    Attributes:
        convention: "half_pixel": output j lies at (j + 0.5) / factor - 0.5 of the input, clamped to
            it (OpenCV, PyTorch with align_corners=False; no antialiasing). "transposed": the
            transposed convolution of Long et al. 2015, kernel 2 x factor, stride factor, no
            padding, bilinear weights; zero outside.
        factor: output pixels per input pixel; None takes output size / input size.
        offset: output pixels that are cropped at the start; any number, negative too, for
            "half_pixel", whose grids need not begin at one place.
    """

    convention: str
    factor: int | None = None
    offset: float = 0

    def __post_init__(self):
        if self.convention not in CONVENTIONS:
            raise ValueError(
                f"Unknown convention {self.convention!r}; known: {', '.join(CONVENTIONS)}."
            )
        if self.convention == "transposed" and self.factor is None:
            raise ValueError('"transposed" needs a whole factor.')
        if self.convention == "transposed" and self.offset != int(self.offset):
            raise ValueError(f'"transposed" crops whole pixels, got offset {self.offset}.')

    def matrix(self, size_in: int, size_out: int) -> np.ndarray:
        """float32 [size_out, size_in]; rows of "half_pixel" sum to one."""
        factor = size_out / size_in if self.factor is None else self.factor
        target = self.offset + np.arange(size_out)[:, None]
        source = np.arange(size_in)[None, :]
        if self.convention == "half_pixel":
            position = np.clip((target + 0.5) / factor - 0.5, 0, size_in - 1)
            weight = np.maximum(0, 1 - np.abs(position - source))
        else:
            kernel = bilinear_kernel(2 * self.factor)
            tap = (target - self.factor * source).astype(np.int64)
            weight = np.where(
                (tap >= 0) & (tap < 2 * self.factor), kernel[np.clip(tap, 0, kernel.size - 1)], 0
            )
        return weight.astype(np.float32)


def bilinear_kernel(size: int) -> np.ndarray:
    """float64 [size]: the triangle of the FCN release, symmetric for odd and even sizes."""
    half = (size + 1) // 2
    centre = half - 1 if size % 2 else half - 0.5
    return 1 - np.abs(np.arange(size) - centre) / half


def apply(x: jax.Array, rows: np.ndarray | jax.Array, cols: np.ndarray | jax.Array) -> jax.Array:
    """[B, h, w, C], [H, h], [W, w] -> float32 [B, H, W, C].

    Full float32 products: on accelerators the default would round scores to 8 or 10 bits.
    """
    x = x.astype(jnp.float32)
    x = jnp.einsum("Hh,bhwc->bHwc", rows, x, precision="highest")
    return jnp.einsum("Ww,bHwc->bHWc", cols, x, precision="highest")
