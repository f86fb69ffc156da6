"""Opened and checked splits of a data set, with the results of their scans."""

import dataclasses

from segjax.data import scan, sources
from segjax.data.dataset import Dataset


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


def open_split(dataset: Dataset, name: str, *, cache: bool = False) -> Split:
    """Opens a split and scans its examples.

    Args:
        dataset: result of `catalog.load`.
        name: name of the split.
        cache: whether to keep decoded examples in memory.

    Raises:
        InputError: if there is no such split, or some of its examples have problems.
    """
    source = dataset.splits[name]
    result = scan.scan(source, dataset.spec, name=f"{dataset.spec.name}/{name}")
    return Split(name, sources.CachedSource(source) if cache else source, result)
