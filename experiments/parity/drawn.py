"""Images and weights that comparisons draw: the same numbers with every version of numpy."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SEED = 0


def draw_images(
    sizes: Sequence[tuple[int, int]], patch: tuple[int, int] = (5, 7)
) -> list[np.ndarray]:
    """Images of patches of one colour: uint8 [H, W, 3] of each size."""
    rng, (high, wide) = np.random.default_rng(SEED), patch
    images = []
    for height, width in sizes:
        patches = rng.integers(0, 256, (-(-height // high), -(-width // wide), 3), np.uint8)
        images.append(patches.repeat(high, axis=0).repeat(wide, axis=1)[:height, :width])
    return images


class Recipe(NamedTuple):
    """The recipe of a drawn array.

    Attributes:
        shape: of the array.
        kind: "kernel", of about He et al.'s deviation; "scale" around 1, "var" 0.5 to 2, "bias"
            and "mean" up to 0.5; "counter", 0.
        fan_in: of a kernel.
        gain: multiplies a kernel or a scale.
    """

    shape: tuple[int, ...]
    kind: str
    fan_in: int = 1
    gain: float = 1


def draw(name: str, recipe: Recipe) -> np.ndarray:
    """A float32 array, decided by its name and recipe alone: whole numbers times a power of two."""
    shape, kind, fan_in, gain = recipe
    if kind == "counter":
        return np.zeros(shape, np.int64)
    words = np.random.PCG64([SEED, *name.encode()]).random_raw(math.prod(shape))
    whole = (words >> np.uint64(32)).astype(np.int64).reshape(shape)
    if kind == "kernel":
        scale = math.sqrt(2 / fan_in) / 9 * gain  # 9: the deviation of the whole numbers
        return np.ldexp((whole % 31 - 15).astype(np.float32), round(math.log2(scale)))
    if kind == "var":
        return (whole % 25 + 8).astype(np.float32) / 16
    if kind == "scale":
        return (whole % 17 + 8).astype(np.float32) / 16 * np.float32(gain)
    return (whole % 31 - 15).astype(np.float32) / 32
