"""The weight files in `$SEGJAX_WEIGHTS`, which not every machine has, and images for them."""

import os
import pathlib
from collections.abc import Iterable

import numpy as np
import pytest

FOLDER = pathlib.Path(os.environ.get("SEGJAX_WEIGHTS", "weights"))


def needs(name: str) -> pytest.MarkDecorator:
    """Skips a test if the file is absent."""
    return pytest.mark.skipif(
        not (FOLDER / name).exists(), reason=f"$SEGJAX_WEIGHTS has no {name} (looked in {FOLDER})"
    )


def photographs(names: Iterable[str]) -> np.ndarray:
    """Photographs of scikit-image for classifiers: uint8 [N, 224, 224, 3].

    Each is resized to a short side of 256 and cropped to its middle. The way of the README of the
    weights is unknown; other usual ways change GoogLeNet's probability of the rocket by up to 0.16.
    """
    data = pytest.importorskip("skimage.data", reason="scikit-image has the photographs")
    pillow = pytest.importorskip("PIL.Image")
    images = []
    for name in names:
        image = pillow.fromarray(getattr(data, name)())
        scale = 256 / min(image.size)
        size = [round(scale * side) for side in image.size]
        image = np.asarray(image.resize(size, pillow.BICUBIC))
        top, left = ((side - 224) // 2 for side in image.shape[:2])
        images.append(image[top : top + 224, left : left + 224])
    return np.stack(images)


def imagenet_classes() -> list[str]:
    """The names of the 1000 classes of ImageNet in their order."""
    return (FOLDER / "imagenet_classes.txt").read_text().splitlines()
