"""The cases of both sides of `protocols.py`: sizes of images, the images, a random network.

Nothing here needs jax, torch or tensorflow, which live in different environments.
"""

import pathlib

import numpy as np

FIXTURES = pathlib.Path(__file__).parents[2] / "tests" / "fixtures" / "protocols"
K = 5
EVERY = 3
STRIDE = 8  # of the random network around which DeepLab's code is run
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
# Sizes of images: odd, smaller than the window, long, one that fits.
SEMSEG = {
    "crop": (57, 57),
    "base_size": 64,
    "sizes": ((45, 61), (37, 29), (31, 90), (57, 57)),
}
WHOLE_SIZES = ((45, 61), (64, 50), (33, 9))
DEEPLAB_SIZES = ((65, 65), (49, 81), (33, 97))


def draw_image(size: tuple[int, int]) -> np.ndarray:
    """An image of patches of one colour, uint8 [H, W, 3]."""
    rng = np.random.default_rng(size[0] * 1000 + size[1])
    patches = rng.integers(0, 256, (-(-size[0] // 5), -(-size[1] // 7), 3), np.uint8)
    return patches.repeat(5, axis=0).repeat(7, axis=1)[: size[0], : size[1]]


def kernel() -> np.ndarray:
    """The kernel of the random network, float32 [9, 9, 3, K]."""
    rng = np.random.default_rng(7)
    return (rng.integers(-15, 16, (9, 9, 3, K)) / 2**9).astype(np.float32)
