"""The photographs that scikit-image ships, and the classes counted in their label maps."""

import importlib.util
import pathlib
from collections.abc import Sequence

import numpy as np

from segjax.data import sources
from segjax.data.spec import VOID

NAMES = ("chelsea.png", "astronaut.png", "coffee.png", "rocket.jpg")


def folder() -> pathlib.Path:
    """The folder in which scikit-image keeps them; the package is not imported for it."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("The photographs come with scikit-image: pip install scikit-image.")
    return pathlib.Path(spec.origin).parent / "data"


class Photographs:
    """The four photographs as a source without truth: every label is VOID."""

    def __init__(self):
        self._images = [sources.read_image(folder() / name) for name in NAMES]

    @property
    def sizes(self) -> np.ndarray:
        """int32 [N, 2]."""
        return np.array([image.shape[:2] for image in self._images], np.int32)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = self._images[index]
        return image, np.full(image.shape[:2], VOID, np.uint8)

    def name(self, index: int) -> str:
        """The file's name."""
        return NAMES[index]


def class_pixels(label: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    """Pixels of each class in a label map, the largest first."""
    counts = zip(*np.unique(label, return_counts=True), strict=True)
    return {classes[i]: int(count) for i, count in sorted(counts, key=lambda pair: -pair[1])}
