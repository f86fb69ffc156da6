"""Where named data sets keep their files, as they are downloaded: nothing has to be converted.

A `Layout` finds the splits that are there, and the image and mask files of one of them.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from segjax.data import sources
from segjax.errors import InputError

Pairs = list[tuple[Path, Path]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which files make a data set.

    Attributes:
        files: what a split is made of, for errors.
        splits: root -> the names of the splits that are there; InputError if there is none.
        pairs: root and split -> its (image, mask) files, sorted by name, so that a position means
            the same example on every machine; InputError if one of the two is missing, naming it.
    """

    files: str
    splits: Callable[[Path], tuple[str, ...]]
    pairs: Callable[[Path, str], Pairs]


def existing(root: Path) -> Path:
    """`root`, or InputError if there is no such folder."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder (--config.data.root=DIR).")
    return root


def _find_root(root: Path, folder: str, inside: str) -> Path:
    """`root` if it holds `folder`, or else `root/inside` if that does."""
    for path in (existing(root), root / inside):
        if (path / folder).is_dir():
            return path
    raise InputError(f"{root}: holds neither {folder}/ nor {inside}/{folder}/.")


_VOC_FILES = (
    "JPEGImages/<id>.jpg, SegmentationClass/<id>.png and ImageSets/Segmentation/<split>.txt, "
    "for trainaug also SegmentationClassAug/<id>.png"
)
# What the challenge gives, and the names under which the list of the augmented set goes round.
_VOC_LISTS = {
    "train": ("Segmentation/train.txt",),
    "val": ("Segmentation/val.txt",),
    "trainval": ("Segmentation/trainval.txt",),
    "trainaug": (
        "Segmentation/trainaug.txt",
        "Segmentation/train_aug.txt",
        "SegmentationAug/train_aug.txt",
    ),
}


def _voc_splits(root: Path) -> tuple[str, ...]:
    root = _find_root(root, "JPEGImages", "VOCdevkit/VOC2012")
    splits = tuple(split for split in _VOC_LISTS if _voc_list(root, split))
    if not splits:
        raise InputError(
            f"{root / 'ImageSets' / 'Segmentation'}: holds no split's list; a data set is "
            f"{_VOC_FILES}."
        )
    return splits


def _voc_list(root: Path, split: str) -> Path | None:
    if split == "trainaug" and not (root / "SegmentationClassAug").is_dir():
        return None
    paths = (root / "ImageSets" / name for name in _VOC_LISTS[split])
    return next((path for path in paths if path.is_file()), None)


def _voc_pairs(root: Path, split: str) -> Pairs:
    root = _find_root(root, "JPEGImages", "VOCdevkit/VOC2012")
    images, labels, added = (
        root / name for name in ("JPEGImages", "SegmentationClass", "SegmentationClassAug")
    )
    masks = sources.files_by_stem(labels, _VOC_FILES)
    if split == "trainaug":
        # VOC's own mask counts where there are two. The usual archive of the augmented set holds
        # it in both folders; masks converted from SBD alone are coarser, and may lack some images.
        masks = sources.files_by_stem(added, _VOC_FILES) | masks
    return _pair_listed(
        _voc_list(root, split),
        sources.files_by_stem(images, _VOC_FILES),
        masks,
        expected=(f"{images}/<id>.jpg", f"{added if split == 'trainaug' else labels}/<id>.png"),
    )


def _pair_listed(
    path: Path, images: dict[str, Path], masks: dict[str, Path], *, expected: tuple[str, str]
) -> Pairs:
    """The images and masks whose ids stand in a list file, sorted by id.

    A line is an id, or, as in DeepLab's lists, `/JPEGImages/<id>.jpg /SegmentationClass/<id>.png`,
    of which the first file's name is the id.

    Args:
        path: the list.
        images, masks: id -> file; those that are not listed do not count.
        expected: where a listed image and mask would have to be, for errors.

    Raises:
        InputError: if the list cannot be read or is empty, has an id twice, or one without its
            image or mask.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    ids = sorted(Path(line.split()[0]).stem for line in lines if line.strip())
    if not ids:
        raise InputError(f"{path}: lists no image; a line is an id, such as 2007_000032.")
    twice = sorted({a for a, b in zip(ids, ids[1:], strict=False) if a == b})
    if twice:
        raise InputError(f"{path}: lists {len(twice)} ids twice ({sources.first_names(twice)}).")
    for kind, found, place in zip(("image", "mask"), (images, masks), expected, strict=True):
        missing = [i for i in ids if i not in found]
        if missing:
            raise InputError(
                f"{path}: {len(missing)} of {len(ids)} listed ids have no {kind} "
                f"({sources.first_names(missing)}); expected is {place}."
            )
    return [(images[i], masks[i]) for i in ids]


_CITYSCAPES_ENDINGS = ("_leftImg8bit.png", "_gtFine_labelIds.png")
_CITYSCAPES_FILES = (
    "leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelIds.png"
)


def _cityscapes_splits(root: Path) -> tuple[str, ...]:
    images = existing(root) / "leftImg8bit"
    splits = [split for split in ("train", "val") if (images / split).is_dir()]
    if (images / "test").is_dir() and (root / "gtFine" / "test").is_dir():
        splits.append("test")  # whose images are often kept without their void masks
    if not splits:
        raise InputError(
            f"{images}: no such folder with train/ or val/ in it; a data set is "
            f"{_CITYSCAPES_FILES}."
        )
    return tuple(splits)


def _cityscapes_pairs(root: Path, split: str) -> Pairs:
    return sources.pair_folders(
        root / "leftImg8bit" / split,
        root / "gtFine" / split,
        _CITYSCAPES_FILES,
        endings=_CITYSCAPES_ENDINGS,
    )


_ADE_FOLDERS = {"train": "training", "val": "validation"}
_ADE_FILES = "images/ and annotations/, in each of them training/ for train and validation/ for val"


def _ade20k_splits(root: Path) -> tuple[str, ...]:
    images = _find_root(root, "images", "ADEChallengeData2016") / "images"
    splits = tuple(split for split, name in _ADE_FOLDERS.items() if (images / name).is_dir())
    if not splits:
        raise InputError(
            f"{images}: holds no training/ or validation/; a data set is {_ADE_FILES}."
        )
    return splits


def _ade20k_pairs(root: Path, split: str) -> Pairs:
    root = _find_root(root, "images", "ADEChallengeData2016")
    name = _ADE_FOLDERS[split]
    return sources.pair_folders(root / "images" / name, root / "annotations" / name, _ADE_FILES)


FOLDERS = Layout("images/<split>/ and labels/<split>/", sources.list_splits, sources.list_pairs)
VOC2012 = Layout(_VOC_FILES, _voc_splits, _voc_pairs)
CITYSCAPES = Layout(_CITYSCAPES_FILES, _cityscapes_splits, _cityscapes_pairs)
ADE20K = Layout(_ADE_FILES, _ade20k_splits, _ade20k_pairs)
