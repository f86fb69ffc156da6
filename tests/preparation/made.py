"""A small data set in a folder."""

from pathlib import Path

import numpy as np
from PIL import Image

from segjax.data import catalog, png
from segjax.data.dataset import Dataset, RegionDataset
from tests import tiny


def folder(root: Path) -> Dataset:
    """Two training examples of road, car and void, one for validation."""
    for split, name, value in (("train", "a", 0), ("train", "b", 7), ("val", "c", 7)):
        label = np.full((20, 30), value, np.uint8)
        label[0] = 255
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20)).save(root / "images" / split / f"{name}.png")
        (root / "labels" / split / f"{name}.png").write_bytes(png.encode_indices(label, []))
    (root / "classes.txt").write_text("0 road\n7 car\n9 sign\n")
    return catalog.load("folder", root=str(root))


def write_regions(root: Path) -> RegionDataset:
    """Two images with two annotators each."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        masks = {k: rng.integers(1, 300, (20, 30)).astype(np.uint16) for k in range(1, 3)}
        tiny.write_regions(root, name, masks)
    return catalog.load_any("bsds500", root=str(root))
