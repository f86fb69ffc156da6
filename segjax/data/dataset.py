"""Data sets: the meaning of the labels, and the examples by split.

A user's data set is a function in a module of the folder where the command runs.
`config.data = {"name": "my_data:discs", "count": 100}` calls `discs(count=100)` of this my_data.py:

    from segjax.data.dataset import Dataset, numbered

    class Discs:
        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

        def name(self, index):
            return f"{index:05}"

        def __getitem__(self, index):
            ...
            return image, label  # uint8 [H, W, 3] RGB, uint8 [H, W] of classes and 255 for void

    def discs(*, count: int = 100):
        spec = numbered("discs", ("ground", "disc"))
        return Dataset(spec, {"train": Discs(count), "val": Discs(20)})
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from segjax.data import annotations, sources
from segjax.data.spec import VOID, DatasetSpec, hls_palette
from segjax.errors import InputError, near


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images with class labels.

    Attributes:
        spec: the meaning of the labels.
        splits: split name -> source, see `sources.Source`. Its labels are classes of `spec` and
            VOID. A source with a constant `size` (height, width) generates its images; `scan` reads
            only a sample of them.
    """

    spec: DatasetSpec
    splits: Mapping[str, sources.Source]

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", Splits.of(self.splits))


@dataclasses.dataclass(frozen=True)
class RegionDataset:
    """Images with several segmentations each, without classes.

    Attributes:
        name: name of the data set, used in messages.
        splits: split name -> source, see `annotations.RegionSource`.
    """

    name: str
    splits: Mapping[str, annotations.RegionSource]

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", Splits.of(self.splits))


class Splits(Mapping[str, sources.Source]):
    """Split name -> source, opened at the first access.

    A run that never uses `test` does not need its files.

    Args:
        names: returns the names of the splits that exist.
        open_split: opens the source of a split.
        expected: the expected place of a split, for errors.
    """

    def __init__(
        self,
        names: Callable[[], tuple[str, ...]],
        open_split: Callable[[str], sources.Source],
        expected: str = "",
    ):
        self._names, self._open, self._expected = names, open_split, expected
        self._opened: dict[str, sources.Source] = {}

    @classmethod
    def of(cls, splits: Mapping[str, sources.Source]) -> "Splits":
        """The mapping as `Splits`, which raises InputError for a missing split."""
        if isinstance(splits, Splits):
            return splits
        return cls(lambda: tuple(splits), splits.__getitem__)

    def __getitem__(self, split: str) -> sources.Source:
        """The source of a split; InputError naming the existing splits if it is missing."""
        if split not in self._opened:
            names = self._names()
            if split not in names:
                raise InputError(
                    f"No split {split!r}; present are {', '.join(names)}{self._expected}."
                    f"{near(split, names)}"
                )
            self._opened[split] = self._open(split)
        return self._opened[split]

    def __contains__(self, split: object) -> bool:
        return split in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


def numbered(name: str, classes: Sequence[str]) -> DatasetSpec:
    """The spec of masks that store class k as id k and VOID as 255; colours from the hue circle.

    Args:
        name: name of the data set.
        classes: names of the classes in order.
    """
    return DatasetSpec(
        name=name,
        classes=tuple(classes),
        palette=hls_palette(len(classes)),
        table=(*((k, k) for k in range(len(classes))), (VOID, VOID)),
    )
