"""File layouts of the named data sets as they are downloaded; no conversion is needed.

A `Layout` lists the splits that exist and the image and mask files of each.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from segjax.data import sources
from segjax.errors import InputError

Pairs = list[tuple[Path, Path]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The arrangement of a data set's files in its folder.

    Attributes:
        files: description of a split's files for errors.
        splits: root -> names of the splits that exist; InputError if there is none.
        pairs: root and split -> its (image, mask) files, sorted by name, so that a position means
            the same example on every machine; InputError naming a missing image or mask.
    """

    files: str
    splits: Callable[[Path], tuple[str, ...]]
    pairs: Callable[[Path, str], Pairs]


def existing(root: Path) -> Path:
    """`root` itself; InputError if the folder does not exist."""
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder (--config.data.root=DIR, or --data_root=DIR beside a run)."
        )
    return root


def _find_root(root: Path, folder: str, inside: str) -> Path:
    """`root` if it contains `folder`, else `root/inside` if that does; else InputError."""
    for path in (existing(root), root / inside):
        if (path / folder).is_dir():
            return path
    raise InputError(f"{root}: holds neither {folder}/ nor {inside}/{folder}/.")


_VOC_FILES = (
    "JPEGImages/<id>.jpg, SegmentationClass/<id>.png and ImageSets/Segmentation/<split>.txt, "
    "for trainaug also SegmentationClassAug/<id>.png"
)
# Lists of the challenge, and the names in use for the list of the augmented set.
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
    listed = _voc_list(root, split)
    if listed is None:
        raise InputError(f"{root}: has no list of the split {split!r} in ImageSets.")
    masks = sources.files_by_stem(labels, _VOC_FILES)
    if split == "trainaug":
        # VOC's mask takes precedence over the augmented set's. The usual archive holds VOC's masks
        # in both folders; masks converted from SBD alone are coarser and may lack some images.
        masks = sources.files_by_stem(added, _VOC_FILES) | masks
    return _pair_listed(
        listed,
        sources.files_by_stem(images, _VOC_FILES),
        masks,
        expected=(f"{images}/<id>.jpg", f"{added if split == 'trainaug' else labels}/<id>.png"),
    )


def _pair_listed(
    path: Path, images: dict[str, Path], masks: dict[str, Path], *, expected: tuple[str, str]
) -> Pairs:
    """The images and masks that a list file names, sorted by id.

    A line is an id, which may hold dots and blanks, or, as in DeepLab's lists,
    `/JPEGImages/<id>.jpg /SegmentationClass/<id>.png`, where the first file's name is the id.

    Args:
        path: the list.
        images, masks: id -> file; unlisted files are ignored.
        expected: the expected places of image and mask, for errors.

    Raises:
        InputError: if the list cannot be read, is empty, repeats an id, or names an id without its
            image or mask.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    ids = sorted(_listed_id(line.strip(), images) for line in lines if line.strip())
    if not ids:
        raise InputError(f"{path}: lists no image; a line is an id, such as 2007_000032.")
    repeated = sorted({a for a, b in zip(ids, ids[1:], strict=False) if a == b})
    if repeated:
        raise InputError(
            f"{path}: lists {len(repeated)} ids twice ({sources.first_names(repeated)})."
        )
    for kind, files, place in zip(("image", "mask"), (images, masks), expected, strict=True):
        missing = [i for i in ids if i not in files]
        if missing:
            raise InputError(
                f"{path}: {len(missing)} of {len(ids)} listed ids have no {kind} "
                f"({sources.first_names(missing)}); expected: {place}."
            )
    return [(images[i], masks[i]) for i in ids]


def _listed_id(line: str, images: Mapping[str, Path]) -> str:
    """The id in a line of a list: the first reading that has an image; the line itself if none."""
    line = sources.plain(line)
    suffixes = "|".join(re.escape(suffix) for suffix in sources.IMAGE_SUFFIXES)
    first = re.split(rf"(?i)(?:{suffixes})(?:\s|$)", line)[0].replace("\\", "/")
    readings = [line, first, first.rpartition("/")[2], line.split()[0]]
    return next((reading for reading in readings if reading in images), readings[2])


_CITYSCAPES_ENDINGS = ("_leftImg8bit.png", "_gtFine_labelIds.png")
_CITYSCAPES_FILES = (
    "leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelIds.png"
)


def _cityscapes_splits(root: Path) -> tuple[str, ...]:
    images = existing(root) / "leftImg8bit"
    splits = [split for split in ("train", "val") if (images / split).is_dir()]
    if (images / "test").is_dir() and (root / "gtFine" / "test").is_dir():
        splits.append("test")  # its images are often stored without their void masks
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
_ADE_FILES = "images/ and annotations/, each with training/ for train and validation/ for val"


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
