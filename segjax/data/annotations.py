"""Region data sets: images with the segmentations of several annotators, without classes.

A region example is (image uint8 [H, W, 3] RGB, segmentations int32 [A, H, W]): one map for each of
A annotators, with region numbers from 0 and -1 for pixels without truth.
"""

import concurrent.futures
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from segjax.data import png, sources
from segjax.data.spec import VOID
from segjax.errors import InputError

_ANNOTATOR = re.compile(r"(.+)_(\d+)$")  # labels/<split>/<id>_<k>.png

Batch = dict[str, np.ndarray]
"""A batch of images of one size:
    image: uint8 [B, H, W, 3], RGB.
    segmentations: int32 [B, A, H, W], -1 without truth; A is the largest number of annotators.
    annotators: int32 [B], number of annotators of each image.
    index: uint32 [B], item of the data set.
    weight: float32 [B], 0 for rows that fill up the last batch of a size.
"""


class RegionSource(Protocol):
    """Random access to region examples by position."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """image uint8 [H, W, 3] RGB, segmentations int32 [A, H, W]."""

    def name(self, index: int) -> str:
        """A path-like name without suffix, unique within the source."""


class AnnotatedFolder:
    """Image files with one mask file per annotator, decoded at every access.

    Args:
        files: (image, masks) paths, as `list_annotated` returns them.
    """

    def __init__(self, files: Sequence[tuple[Path, Sequence[Path]]]):
        self.files = tuple(files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """image uint8 [H, W, 3] RGB, segmentations int32 [A, H, W], numbers from 0.

        Raises:
            InputError: naming a file that cannot be decoded, or a mask whose size differs.
        """
        image_path, mask_paths = self.files[index]
        image = sources.read_image(image_path)
        maps = []
        for path in mask_paths:
            mask = png.decode_regions(sources.read_bytes(path), str(path))
            sources.check_sizes(image, mask, image_path, path)
            maps.append(np.unique(mask, return_inverse=True)[1].reshape(mask.shape))
        return image, np.stack(maps).astype(np.int32)

    def name(self, index: int) -> str:
        """The image's name without suffix."""
        return self.files[index][0].stem


class LabelRegions:
    """A labelled source as a region source: the label map is its only segmentation.

    Args:
        source: source with class labels; VOID becomes -1.
    """

    def __init__(self, source: sources.Source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """image uint8 [H, W, 3] RGB, segmentations int32 [1, H, W]."""
        image, label = self.source[index]
        return image, np.where(label == VOID, -1, label.astype(np.int32))[None]

    def name(self, index: int) -> str:
        """The name in the source."""
        return self.source.name(index)


def list_annotated(root: Path, split: str) -> list[tuple[Path, list[Path]]]:
    """Images of `root/images/<split>` with their masks `root/labels/<split>/<id>_<k>.png`.

    Images are sorted by name, masks by k.

    Raises:
        InputError: if a folder is missing or empty, an image has no mask, a mask no image, or a
            mask's name does not end in an annotator's number.
    """
    images = Path(root) / "images" / split
    masks = Path(root) / "labels" / split
    layout = "images/<split>/<id>.jpg and labels/<split>/<id>_<k>.png"
    by_name: dict[str, list[tuple[int, Path]]] = {}
    for stem, path in sources.files_by_stem(masks, layout).items():
        match = _ANNOTATOR.match(stem)
        if not match:
            raise InputError(
                f"{path}: the name must end in _<k>, the annotator; the layout is {layout}."
            )
        by_name.setdefault(match[1], []).append((int(match[2]), path))
    by_stem = sources.files_by_stem(images, layout)
    for missing, text in (
        (sorted(by_stem.keys() - by_name.keys()), "images without a mask"),
        (sorted(by_name.keys() - by_stem.keys()), "masks without an image"),
    ):
        if missing:
            raise InputError(
                f"{images} and {masks} do not pair up: {len(missing)} {text}, the first "
                f"{missing[0]!r}; the layout is {layout}."
            )
    return [
        (by_stem[stem], [path for _, path in sorted(by_name[stem])]) for stem in sorted(by_stem)
    ]


def sizes(source: RegionSource, chosen: Sequence[int]) -> np.ndarray:
    """Height, width and number of annotators of the chosen examples: int32 [n, 3].

    Decodes every file, so that a damaged one is reported before a run starts.

    Raises:
        InputError: naming the first file that cannot be decoded.
    """

    def measure(index: int) -> tuple[int, int, int]:
        annotators, height, width = source[int(index)][1].shape
        return height, width, annotators

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(measure, chosen)), np.int32).reshape(-1, 3)


def batches(
    source: RegionSource, chosen: Sequence[int], measures: np.ndarray, batch_size: int
) -> Iterator[Batch]:
    """Batches of the chosen examples, each once, grouped by size; decoded one batch ahead.

    Args:
        source: the examples.
        chosen: items of the source.
        measures: result of `sizes` for these items.
        batch_size: rows; rows of weight 0 fill up the last batch of a size.
    """
    most = int(measures[:, 2].max(initial=1))
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (height, width, _) in zip(chosen, measures, strict=True):
        groups.setdefault((int(height), int(width)), []).append(int(index))
    parts = [
        (size, items[start : start + batch_size])
        for size, items in sorted(groups.items())
        for start in range(0, len(items), batch_size)
    ]

    def load(part: tuple[tuple[int, int], list[int]]) -> Batch:
        size, items = part
        batch: Batch = {
            "image": np.zeros((batch_size, *size, 3), np.uint8),
            "segmentations": np.full((batch_size, most, *size), -1, np.int32),
            "annotators": np.zeros(batch_size, np.int32),
            "index": np.zeros(batch_size, np.uint32),
            "weight": np.zeros(batch_size, np.float32),
        }
        for row, index in enumerate(items):
            image, maps = source[index]
            batch["image"][row], batch["segmentations"][row, : len(maps)] = image, maps
            batch["annotators"][row], batch["index"][row] = len(maps), index
            batch["weight"][row] = 1
        return batch

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(load, part) for part in parts[:1]]
        for part in [*parts[1:], None]:
            if ahead:
                ready = ahead.pop().result()
                if part is not None:
                    ahead.append(pool.submit(load, part))
                yield ready
