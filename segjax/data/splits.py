"""The splits that a run uses: opened, checked, and what their scans found."""

import dataclasses

from segjax.data import catalog, scan, sources


@dataclasses.dataclass(frozen=True)
class Split:
    """A part of a data set.

    Attributes:
        name: of the split.
        source: its examples.
        scan: what they hold.
    """

    name: str
    source: sources.Source
    scan: scan.Scan

    @property
    def canvas(self) -> tuple[int, int]:
        """The height and width that every image of the split fits into."""
        height, width = self.scan.sizes.max(axis=0)
        return int(height), int(width)


def open_split(dataset: catalog.Dataset, name: str, *, cache: bool = False) -> Split:
    """Opens and checks a split.

    Args:
        dataset: of `catalog.load`.
        name: of the split.
        cache: keep decoded examples in memory.

    Raises:
        InputError: if there is no such split, or something is wrong with its files.
    """
    source = dataset.splits[name]
    found = scan.scan(source, dataset.spec, name=f"{dataset.spec.name}/{name}")
    return Split(name, sources.CachedSource(source) if cache else source, found)
