"""Opened and checked splits of a data set, with the results of their scans."""

import dataclasses

import numpy as np
from absl import logging

from segjax.data import scan, sources
from segjax.data.dataset import Dataset
from segjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of a data set.

    Attributes:
        name: name of the split.
        source: its examples.
        scan: counts and digests of its examples.
    """

    name: str
    source: sources.Source
    scan: scan.Scan

    @property
    def canvas(self) -> tuple[int, int]:
        """The smallest (height, width) into which every image of the split fits."""
        height, width = self.scan.sizes.max(axis=0)
        return int(height), int(width)


def open_split(dataset: Dataset, name: str, *, cache: bool = False, named_by: str = "") -> Split:
    """Opens a split and scans its examples; files that change after that are refused when read.

    Args:
        dataset: result of `catalog.load`.
        name: name of the split.
        cache: whether to keep decoded examples in memory.
        named_by: the key or flag that names the split, for messages.

    Raises:
        InputError: if there is no such split, or some of its examples have problems.
    """
    try:
        source = dataset.splits[name]
    except InputError as error:
        raise InputError(f"{named_by}: {error}" if named_by else str(error)) from None
    result = scan.scan(source, dataset.spec, name=f"{dataset.spec.name}/{name}")
    if isinstance(source, sources.FolderSource):
        # What is learnt and scored is then what the run's record and fingerprint tell of.
        contents = np.array([parts for _, *parts in result.contents], np.int64)
        source = sources.FolderSource(pairs=source.pairs, spec=source.spec, contents=contents)
    return Split(name, sources.CachedSource(source) if cache else source, result)


def check_trainable(train: Split, val: Split) -> None:
    """Checks that a training on these splits can learn something and be scored.

    Raises:
        InputError: if there is only one class, or no pixel of a split has a class.
    """
    spec = train.scan.spec
    if spec.num_classes < 2:
        raise InputError(
            f"{spec.name} has one class, {spec.classes[0]!r}: every pixel would get it, and every "
            "score would be 100. Name what is not of it a class, too, such as background."
        )
    for split in (train, val):
        if split.scan.sampled == len(split.source) and not split.scan.pixels.any():
            raise InputError(
                f"{spec.name}/{split.name}: all pixels are void: nothing to learn or to score."
            )
    absent = [spec.classes[i] for i in np.flatnonzero(train.scan.pixels == 0)]
    if absent and train.scan.sampled == len(train.source):
        logging.warning(
            "%s/%s holds no pixel of %s.", spec.name, train.name, sources.first_names(absent)
        )
