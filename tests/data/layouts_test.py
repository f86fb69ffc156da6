from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjax.configs import default
from segjax.configuration import vocabulary
from segjax.data import catalog, class_tables, png, scan
from segjax.data.spec import VOID
from segjax.errors import InputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))


def _image(path: Path, red: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2), (red, 0, 0)).save(path)


def _mask(path: Path, *ids: int) -> None:
    """Writes a mask of 2 x 3 pixels: the ids, then the last id up to the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.full((2, 3), ids[-1], np.uint8)
    label[0, : len(ids)] = ids
    path.write_bytes(png.encode_indices(label, class_tables.VOC2012.palette))


def _voc(root: Path, masks: dict[str, int], **lists: str) -> Path:
    """Writes VOC's layout; `masks`: image id -> raw id in its mask, `lists`: split -> its text."""
    for stem, raw in masks.items():
        _image(root / "JPEGImages" / f"{stem}.jpg", red=200)
        _mask(root / "SegmentationClass" / f"{stem}.png", raw, 255)
    for split, text in lists.items():
        path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def _city(root: Path, split: str, frame: str, *ids: int) -> Path:
    city = frame.split("_")[0]
    _image(root / "leftImg8bit" / split / city / f"{frame}_leftImg8bit.png")
    masks = root / "gtFine" / split / city
    _mask(masks / f"{frame}_gtFine_labelIds.png", *ids)
    for other in ("color", "instanceIds", "labelTrainIds"):
        _image(masks / f"{frame}_gtFine_{other}.png")
    (masks / f"{frame}_gtFine_polygons.json").write_text("{}")
    return root


def _ade(root: Path, folder: str, stem: str, *ids: int) -> Path:
    _image(root / "images" / folder / f"{stem}.jpg")
    _mask(root / "annotations" / folder / f"{stem}.png", *ids)
    return root


def _names(name: str, root: Path) -> dict[str, list[str]]:
    splits = catalog.load(name, root=str(root)).splits
    return {split: [s.name(i) for i in range(len(s))] for split, s in splits.items()}


def _labels(name: str, root: Path, split: str) -> list[list[int]]:
    """The classes in the first row of every example."""
    source = catalog.load(name, root=str(root)).splits[split]
    return [source[i][1][0].tolist() for i in range(len(source))]


@pytest.mark.parametrize("name", ["voc2012", "cityscapes", "ade20k"])
def test_a_data_set_without_root_is_expected_in_the_data_home(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SEGJAX_DATA", str(tmp_path))
    config = vocabulary.apply(default.get_config(), vocabulary.Words(name, "small"))
    dataset = catalog.load(**config.data)
    assert dataset.spec.name == name
    with pytest.raises(InputError, match=rf"{tmp_path / name}: no such folder .*data\.root=DIR"):
        dataset.splits["train"]
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=str(tmp_path / name)):
        list(dataset.splits)


@pytest.mark.parametrize("inside", ["", "VOCdevkit/VOC2012"])
def test_vocs_splits_are_its_lists_sorted(tmp_path: Path, inside: str):
    masks = {"2008_000002": 5, "2007_000033": 1, "2007_000032": 20, "2009_000001": 7}
    lists = {"train": "2008_000002\n2007_000032\n", "val": "2007_000033\r\n \r\n"}
    _voc(tmp_path / inside, masks, **lists, test="2010_000001\n")
    assert _names("voc2012", tmp_path) == {
        "train": ["2007_000032", "2008_000002"],
        "val": ["2007_000033"],
    }
    image, label = catalog.load("voc2012", root=str(tmp_path)).splits["train"][0]
    assert image[0, 0, 0] > 150
    np.testing.assert_array_equal(label, [[20, VOID, VOID], [VOID, VOID, VOID]])


_AUGMENTED = {  # the names and forms of the list in use
    "Segmentation/trainaug.txt": "c\na\n",
    "Segmentation/train_aug.txt": "a\nc\n",
    "SegmentationAug/train_aug.txt": (
        "/JPEGImages/a.jpg /SegmentationClassAug/a.png\n"
        "/JPEGImages/c.jpg /SegmentationClassAug/c.png\n"
    ),
}


@pytest.mark.parametrize("name", _AUGMENTED)
def test_vocs_masks_take_precedence_over_those_of_the_augmented_set(tmp_path: Path, name: str):
    root = _voc(tmp_path, {"a": 1, "b": 2}, train="a\n", val="b\n")
    _image(root / "JPEGImages" / "c.jpg")
    for stem in "ac":
        _mask(root / "SegmentationClassAug" / f"{stem}.png", 3)
    assert list(_names("voc2012", root)) == ["train", "val"]
    path = root / "ImageSets" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(_AUGMENTED[name])
    assert _names("voc2012", root) == {"train": ["a"], "val": ["b"], "trainaug": ["a", "c"]}
    assert _labels("voc2012", root, "trainaug") == [[1, VOID, VOID], [3, 3, 3]]


def test_the_augmented_set_without_masks_is_refused_naming_the_needed_files(tmp_path: Path):
    root = _voc(tmp_path, {"a": 1}, train="a\n", trainaug="a\n")
    with pytest.raises(
        InputError, match=rf"'trainaug'; present are train in {root} .*trainaug also Segmentation"
    ):
        catalog.load("voc2012", root=str(root)).splits["trainaug"]
    _mask(root / "SegmentationClassAug" / "a.png", 1)
    _image(root / "JPEGImages" / "c.jpg")
    _voc(root, {}, trainaug="a\nc\n")
    with pytest.raises(
        InputError, match=r"1 of 2 .* no mask \(c\).*SegmentationClassAug/<id>\.png"
    ):
        catalog.load("voc2012", root=str(root)).splits["trainaug"]


def test_a_problem_with_a_list_of_voc_is_named(tmp_path: Path):
    root = _voc(tmp_path, {"a": 1, "b": 2}, val="a\n")
    for text, message in {
        "\n": "lists no image; a line is an id",
        "a\nb\na\n": r"lists 1 ids twice \(a\)",
        "a\nc\nd\n": r"2 of 3 listed ids have no image \(c, d\); .*JPEGImages/<id>\.jpg",
    }.items():
        _voc(root, {}, train=text)
        splits = catalog.load("voc2012", root=str(root)).splits
        assert len(splits["val"]) == 1  # the other split does not need it
        with pytest.raises(InputError, match=rf"Segmentation/train\.txt: {message}"):
            splits["train"]
    (root / "SegmentationClass" / "b.png").unlink()
    _voc(root, {}, train="a\nb\n")
    with pytest.raises(InputError, match=r"train\.txt: 1 of 2 .* no mask \(b\); .*Class/<id>\.png"):
        catalog.load("voc2012", root=str(root)).splits["train"]
    (root / "ImageSets" / "Segmentation" / "train.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(InputError, match=r"train\.txt: cannot be read as UTF-8"):
        catalog.load("voc2012", root=str(root)).splits["train"]
    for split in ("train", "val"):
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").unlink()
    with pytest.raises(InputError, match=r"Segmentation: holds no split's list; .*<split>\.txt"):
        catalog.load("voc2012", root=str(root)).splits["train"]


def test_ids_of_voc_may_hold_dots_blanks_and_accents(tmp_path: Path):
    masks = {"2007.01": 1, "2007.02": 2, "my photo": 3, "caf\u00e9": 4, "e": 5}
    lists = "2007.01\n2007.02.jpg\n my photo \ncafe\u0301\n/JPEGImages/e.jpg /Masks/e.png\n"
    root = _voc(tmp_path, masks, train=lists)
    assert _names("voc2012", root) == {"train": sorted(masks)}
    _voc(root, {}, train="my photo\nmy car\n2007.03\n")
    with pytest.raises(InputError, match=r"2 of 3 .* no image \(2007\.03, my car\)"):
        catalog.load("voc2012", root=str(root)).splits["train"]
    name = "/JPEGImages/my photo.jpg /SegmentationClassAug/my photo.png\n"
    assert _names("voc2012", _voc(root, {}, train=name)) == {"train": ["my photo"]}


def test_a_folder_without_voc_is_refused_naming_both_places(tmp_path: Path):
    with pytest.raises(InputError, match="neither JPEGImages/ nor VOCdevkit/VOC2012/JPEGImages/"):
        catalog.load("voc2012", root=str(tmp_path)).splits["train"]


def test_cityscapes_pairs_the_label_ids_and_no_other_file(tmp_path: Path):
    _city(tmp_path, "train", "ulm_000001_000019", 7, 0, 26)
    _city(tmp_path, "train", "aachen_000000_000019", 33, 255, 18)
    _city(tmp_path, "val", "lindau_000003_000019", 8)
    assert _names("cityscapes", tmp_path) == {
        "train": ["aachen/aachen_000000_000019_leftImg8bit", "ulm/ulm_000001_000019_leftImg8bit"],
        "val": ["lindau_000003_000019_leftImg8bit"],
    }
    assert _labels("cityscapes", tmp_path, "train") == [[18, VOID, VOID], [0, VOID, 13]]


def test_cityscapes_test_split_needs_both_of_its_folders(tmp_path: Path):
    _city(tmp_path, "train", "ulm_000001_000019", 7)
    _image(tmp_path / "leftImg8bit" / "test" / "bonn" / "bonn_000000_000019_leftImg8bit.png")
    splits = catalog.load("cityscapes", root=str(tmp_path)).splits
    assert list(splits) == ["train"]
    with pytest.raises(InputError, match=r"'test'; present are train in .*gtFine/<split>/"):
        splits["test"]
    _city(tmp_path, "test", "bonn_000000_000019", 0, 1, 3)
    assert _labels("cityscapes", tmp_path, "test") == [[VOID, VOID, VOID]]


def test_missing_files_of_cityscapes_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="leftImg8bit: no such folder with train/ or val/ in it"):
        catalog.load("cityscapes", root=str(tmp_path)).splits["train"]
    _city(tmp_path, "train", "ulm_000001_000019", 7)
    splits = catalog.load("cityscapes", root=str(tmp_path)).splits
    masks = tmp_path / "gtFine" / "train" / "ulm"
    _image(tmp_path / "leftImg8bit" / "train" / "ulm" / "ulm_000002_000019_leftImg8bit.png")
    with pytest.raises(
        InputError, match=r"1 images without a mask \(ulm/ulm_000002_000019\);.*_gtFine_labelIds"
    ):
        splits["train"]
    _mask(masks / "ulm_000002_000019_gtFine_labelIds.png", 7)
    _mask(masks / "ulm_000003_000019_gtFine_labelIds.png", 7)
    with pytest.raises(InputError, match=r"1 masks without an image \(ulm/ulm_000003_000019\)"):
        splits["train"]
    for path in masks.glob("*_labelIds.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"gtFine/train: holds no image .*\*_gtFine_labelIds\.png"):
        splits["train"]
    (tmp_path / "gtFine").rename(tmp_path / "gtCoarse")
    with pytest.raises(
        InputError, match=r"gtFine/train: no such folder; a data set is leftImg8bit"
    ):
        splits["train"]


@pytest.mark.parametrize("inside", ["", "ADEChallengeData2016"])
def test_ade20k_training_and_validation_are_train_and_val(tmp_path: Path, inside: str):
    root = tmp_path / inside
    _ade(root, "training", "ADE_train_00000002", 0, 1, 150)
    _ade(root, "training", "ADE_train_00000001", 13)
    _ade(root, "validation", "ADE_val_00000001", 4)
    assert _names("ade20k", tmp_path) == {
        "train": ["ADE_train_00000001", "ADE_train_00000002"],
        "val": ["ADE_val_00000001"],
    }
    assert _labels("ade20k", tmp_path, "train") == [[12, 12, 12], [VOID, 0, 149]]


def test_missing_files_of_ade20k_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="neither images/ nor ADEChallengeData2016/images/"):
        catalog.load("ade20k", root=str(tmp_path)).splits["train"]
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="images: holds no training/ or validation/"):
        catalog.load("ade20k", root=str(tmp_path)).splits["train"]
    _ade(tmp_path, "training", "a", 1)
    splits = catalog.load("ade20k", root=str(tmp_path)).splits
    with pytest.raises(InputError, match=r"'test'; present are train in .*validation/ for val"):
        splits["test"]
    _image(tmp_path / "images" / "training" / "b.jpg")
    with pytest.raises(InputError, match=r"1 images without a mask \(b\)"):
        splits["train"]
    _image(tmp_path / "images" / "validation" / "a.jpg")
    with pytest.raises(InputError, match=r"annotations/validation: no such folder; a data set is"):
        splits["val"]


def test_masks_of_another_numbering_are_refused_by_the_scan(tmp_path: Path):
    _ade(tmp_path, "training", "a", 1, 255)  # ids 0 to 149 and 255 are a common conversion
    dataset = catalog.load("ade20k", root=str(tmp_path))
    with pytest.raises(scan.ScanError, match=r"a\.png: undeclared label id 255 .*declares 0-150"):
        scan.scan(dataset.splits["train"], dataset.spec, name="ade20k train")
