"""The photographs that scikit-image ships, and what a label map says of one."""

import importlib.util
import pathlib
from collections.abc import Sequence

import numpy as np

NAMES = ("chelsea.png", "astronaut.png", "coffee.png", "rocket.jpg")


def folder() -> pathlib.Path:
    """Where scikit-image keeps them; it is not imported for it."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("The photographs come with scikit-image: pip install scikit-image.")
    return pathlib.Path(spec.origin).parent / "data"


def class_pixels(label: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    """Pixels of each class in a label map, the largest first."""
    counts = zip(*np.unique(label, return_counts=True), strict=True)
    return {classes[i]: int(count) for i, count in sorted(counts, key=lambda pair: -pair[1])}
