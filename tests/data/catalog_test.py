import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjax.data import catalog, class_list, png, scan
from segjax.data.spec import VOID
from segjax.errors import InputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))


def _write_pair(root: Path, label: np.ndarray, *, split: str = "train", name: str = "a") -> None:
    for kind in ("images", "labels"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", label.shape[1::-1])
    image.save(root / "images" / split / f"{name}.png")
    label_path = root / "labels" / split / f"{name}.png"
    if label.ndim == 3:
        Image.fromarray(label).save(label_path)
    else:
        label_path.write_bytes(png.encode_indices(label, []))


def _ids(*ids: int) -> np.ndarray:
    return np.array([ids], np.uint8)


def _classes(root: Path, text: str):
    root.mkdir(exist_ok=True)
    (root / "classes.txt").write_text(text)
    return class_list.read(root / "classes.txt")


def test_an_unknown_data_set_names_the_known_and_the_near_one():
    with pytest.raises(
        InputError,
        match=r"^config.data.name: unknown 'camvidd'; known: scenes, camvid, .*\"camvid\"\?$",
    ):
        catalog.load("camvidd")


def test_unknown_and_missing_options_name_the_allowed_ones():
    with pytest.raises(InputError, match="config.data: camvid takes no 'rot'; options: root."):
        catalog.load("camvid", rot="x")
    with pytest.raises(InputError, match="config.data: folder needs root; options: root."):
        catalog.load("folder")


def test_named_data_sets_lie_in_the_data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SEGJAX_DATA", raising=False)
    assert catalog.data_home() == Path("data")
    monkeypatch.setenv("SEGJAX_DATA", str(tmp_path))
    _write_pair(tmp_path / "camvid", _ids(0, 10, 11))
    _, label = catalog.load("camvid").splits["train"][0]
    np.testing.assert_array_equal(label, [[0, 10, VOID]])


def test_camvid_has_its_eleven_classes_and_colours():
    spec = catalog.load("camvid").spec
    assert (spec.num_classes, spec.classes[3], spec.classes[10]) == (11, "road", "bicyclist")
    assert spec.palette[3] == (128, 64, 128)


def test_a_split_that_is_missing_stops_only_those_who_ask_for_it(tmp_path: Path):
    _write_pair(tmp_path, _ids(0, 1, 2))
    (tmp_path / "images" / "test").mkdir()
    splits = catalog.load("folder", root=str(tmp_path)).splits
    assert list(splits) == ["test", "train"]
    assert len(splits["train"]) == 1
    assert "val" not in splits
    with pytest.raises(InputError, match="No split 'val'; present are test, train"):
        splits["val"]
    with pytest.raises(InputError, match="images/test: holds no image"):
        splits["test"]


def test_camvid_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path):
    dataset = catalog.load("camvid", root=str(tmp_path / "none"))
    with pytest.raises(InputError, match="none/images: no such folder"):
        dataset.splits["train"]


def test_an_empty_or_missing_root_is_refused():
    with pytest.raises(InputError, match="--config.data.root=DIR"):
        catalog.load("folder", root="")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        catalog.load("folder", root="nowhere")


def test_without_classes_the_ids_of_the_train_masks_are_the_classes(tmp_path: Path):
    _write_pair(tmp_path, _ids(0, 2, 255))
    _write_pair(tmp_path, _ids(1, 3), name="b")
    _write_pair(tmp_path, _ids(9), split="val")
    dataset = catalog.load("folder", root=str(tmp_path))
    assert dataset.spec.classes == ("class 0", "class 1", "class 2", "class 3")
    assert dataset.spec.name == tmp_path.name
    np.testing.assert_array_equal(dataset.splits["train"][0][1], [[0, 2, VOID]])
    with pytest.raises(InputError, match="undeclared label id 9"):
        dataset.splits["val"][0]


def test_binary_masks_without_classes_say_how_to_declare_them(tmp_path: Path):
    _write_pair(tmp_path, _ids(0, 255))
    with pytest.raises(InputError, match=r"only 0, 255.*classes\.txt.*`0 background`.*`255 "):
        catalog.load("folder", root=str(tmp_path))
    (tmp_path / "classes.txt").write_text("0 background\n255 crack\n")
    _, label = catalog.load("folder", root=str(tmp_path)).splits["train"][0]
    np.testing.assert_array_equal(label, [[0, 1]])


def test_ids_too_sparse_to_be_classes_are_refused(tmp_path: Path):
    _write_pair(tmp_path, _ids(0, 128, 200))
    with pytest.raises(InputError, match=r"3 ids from 0 to 200 occur \(0, 128, 200\)"):
        catalog.load("folder", root=str(tmp_path))


def test_rgb_masks_need_a_colour_for_every_class(tmp_path: Path):
    rgb = np.array([[[9, 9, 9], [255, 0, 0], [0, 0, 0]]], np.uint8)
    _write_pair(tmp_path, rgb)
    with pytest.raises(InputError, match="an RGB mask; list every class with its colour"):
        catalog.load("folder", root=str(tmp_path))
    (tmp_path / "classes.txt").write_text("grey 9 9 9\nred\nvoid 0 0 0\n")
    with pytest.raises(InputError, match="declares no mask colours"):
        catalog.load("folder", root=str(tmp_path)).splits["train"][0]
    (tmp_path / "classes.txt").write_text("grey 9 9 9\nred 255 0 0\nvoid 0 0 0\n")
    _, label = catalog.load("folder", root=str(tmp_path)).splits["train"][0]
    np.testing.assert_array_equal(label, [[0, 1, VOID]])


def _lecture(root: Path, masks: dict[str, np.ndarray], split: str = "train") -> Path:
    """Images and masks in the lecture's layout: stem -> ids [H, W] or RGB [H, W, 3]."""
    for kind in ("images", "annotations"):
        (root / f"{kind}_prepped_{split}").mkdir(parents=True, exist_ok=True)
    for stem, mask in masks.items():
        image = Image.new("RGB", mask.shape[1::-1], (int(stem), 0, 0))
        image.save(root / f"images_prepped_{split}" / f"{stem}.png")
        Image.fromarray(mask).save(root / f"annotations_prepped_{split}" / f"{stem}.png")
    return root


def _grey(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids] * 3, axis=-1)


def test_the_last_files_by_name_are_the_lectures_validation(tmp_path: Path):
    masks = {f"{i:02}": _grey(_ids(i % 4, 0)) for i in (7, 3, 10, 1, 0, 5)}
    splits = catalog.load("lecture", root=str(_lecture(tmp_path, masks)), val_count=2).splits
    names = {split: [s.name(i) for i in range(len(s))] for split, s in splits.items()}
    assert names == {"train": ["00", "01", "03", "05"], "val": ["07", "10"]}
    image, label = splits["val"][0]
    assert image[0, 0, 0] == 7
    np.testing.assert_array_equal(label, [[3, 0]])
    _lecture(tmp_path, {"20": _grey(_ids(2, 1))}, "test")
    splits = catalog.load("lecture", root=str(tmp_path), val_count=2).splits
    assert list(splits) == ["train", "val", "test"]
    np.testing.assert_array_equal(splits["test"][0][1], [[2, 1]])


def test_the_lectures_classes_are_those_of_all_its_masks(tmp_path: Path):
    masks = {"0": _grey(_ids(0, 1)), "1": _grey(_ids(0, 2)), "2": _grey(_ids(3, 255))}
    root = str(_lecture(tmp_path, masks))
    dataset = catalog.load("lecture", root=root, val_count=1)
    assert dataset.spec.classes == ("class 0", "class 1", "class 2", "class 3")
    np.testing.assert_array_equal(dataset.splits["val"][0][1], [[3, VOID]])
    (tmp_path / "classes.txt").write_text("road\ncar\nvoid\ntree\n")
    dataset = catalog.load("lecture", root=root, val_count=1)
    assert dataset.spec.classes == ("road", "car", "tree")
    np.testing.assert_array_equal(dataset.splits["train"][1][1], [[0, VOID]])
    np.testing.assert_array_equal(dataset.splits["val"][0][1], [[2, VOID]])


def test_grey_and_palette_masks_of_the_lecture_are_taken_whatever_the_channel(tmp_path: Path):
    _lecture(tmp_path, {"0": _ids(0, 1), "1": _ids(2, 1), "2": _grey(_ids(1, 1))})
    path = tmp_path / "annotations_prepped_train" / "1.png"
    path.write_bytes(png.encode_indices(_ids(2, 1), [(9, 9, 9), (200, 0, 0), (0, 0, 7)]))
    for channel in ("", "blue"):
        splits = catalog.load("lecture", root=str(tmp_path), val_count=1, channel=channel).splits
        np.testing.assert_array_equal(splits["train"][0][1], [[0, 1]])
        np.testing.assert_array_equal(splits["train"][1][1], [[2, 1]])
        np.testing.assert_array_equal(splits["val"][0][1], [[1, 1]])


def test_masks_whose_channels_differ_need_the_channel_by_name(tmp_path: Path):
    ids = {"red": _ids(0, 2), "green": _ids(1, 1), "blue": _ids(3, 0)}
    rgb = np.stack([ids[channel] for channel in ("red", "green", "blue")], axis=-1)
    root = str(_lecture(tmp_path, {"0": rgb, "1": rgb}))
    with pytest.raises(InputError, match=r"train/0\.png: .* differ.*data\.channel=.*reads blue"):
        catalog.load("lecture", root=root, val_count=1)
    for channel, expected in ids.items():
        dataset = catalog.load("lecture", root=root, val_count=1, channel=channel)
        assert dataset.spec.num_classes == expected.max() + 1
        np.testing.assert_array_equal(dataset.splits["train"][0][1], expected)
    with pytest.raises(InputError, match="data.channel: unknown 'bleu'.*red, green, blue"):
        catalog.load("lecture", root=root, channel="bleu")


def test_one_mask_whose_channels_differ_is_found_by_the_scan(tmp_path: Path):
    bad = _grey(_ids(1, 1))
    bad[0, 0, 2] = 0
    root = _lecture(tmp_path, {"0": _grey(_ids(0, 1)), "1": bad, "2": _grey(_ids(0, 2))})
    dataset = catalog.load("lecture", root=str(root), val_count=1)
    with pytest.raises(
        scan.ScanError, match=r"1 problems in 1 of 2 .*RGB mask 1.*1\.png: .*differ"
    ):
        scan.scan(dataset.splits["train"], dataset.spec, name="lecture/train")


def test_what_the_lectures_layout_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEGJAX_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"lecture: no such folder \(--config\.data\.root=DIR"):
        catalog.load("lecture")
    root = tmp_path / "lecture"
    root.mkdir()
    with pytest.raises(InputError, match="images_prepped_train: no such folder; .*annotations_pre"):
        catalog.load("lecture")
    _lecture(root, {f"{i}": _grey(_ids(0, 1)) for i in range(3)})
    for val_count in (0, 3, 50):
        with pytest.raises(InputError, match=f"data.val_count is {val_count}; 1 to 2 of the 3"):
            catalog.load("lecture", val_count=val_count)
    (root / "annotations_prepped_train" / "1.png").unlink()
    with pytest.raises(InputError, match=r"1 images without a mask \(1\)"):
        catalog.load("lecture", val_count=1)


def test_classes_without_ids_count_from_zero(tmp_path: Path):
    spec = _classes(tmp_path / "toy", "# my classes\nroad\n\ntraffic sign # tall\nvoid\nlevel 2\n")
    assert spec.name == "toy"
    assert spec.classes == ("road", "traffic sign", "level 2")
    assert spec.table == ((0, 0), (1, 1), (2, VOID), (3, 2), (255, VOID))
    assert spec.colors == ()


def test_classes_with_ids_and_colours(tmp_path: Path):
    text = "7 road 128 64 128\n26 big car 0 0 142\n27 big car 0 0 142\n0 Void 1 2 3\n"
    spec = _classes(tmp_path, text)
    assert spec.classes == ("road", "big car")
    assert spec.table == ((7, 0), (26, 1), (27, 1), (0, VOID), (255, VOID))
    assert spec.palette == ((128, 64, 128), (0, 0, 142))
    assert spec.void_color == (1, 2, 3)
    assert dict(spec.colors) == {(128, 64, 128): 7, (0, 0, 142): 26, (1, 2, 3): 0}


@pytest.mark.parametrize(
    "text",
    [
        "0,background\n2,road\n1,car\n",
        "0, background\n2, road\n1, car\n",
        "0;background\n2;road\n1;car\n",
        "0: background\n2: road\n1: car\n",
        "0\tbackground\n2\troad\n1\tcar\n",
    ],
)
def test_ids_may_be_parted_from_names_by_more_than_blanks(tmp_path: Path, text: str):
    spec = _classes(tmp_path, text)
    assert spec.classes == ("background", "road", "car")
    assert spec.table == ((0, 0), (2, 1), (1, 2), (255, VOID))


def test_colours_may_be_parted_by_commas_and_names_may_hold_them(tmp_path: Path):
    spec = _classes(tmp_path, "wall, brick, 1, 2, 3\nBig car;4;5;6\nlevel 2,7,8,9\n")
    assert spec.classes == ("wall, brick", "Big car", "level 2")
    assert spec.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert dict(spec.colors) == {(1, 2, 3): 0, (4, 5, 6): 1, (7, 8, 9): 2}


def test_a_label_map_of_cvat_is_read(tmp_path: Path):
    text = (
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\n"
        "traffic sign:1,2,3:pole,plate:\n"
    )
    spec = _classes(tmp_path, text)
    assert spec.classes == ("background", "road", "traffic sign")
    assert spec.palette == ((0, 0, 0), (128, 64, 128), (1, 2, 3))
    assert dict(spec.colors)[128, 64, 128] == 1
    assert _classes(tmp_path, "road:::\ncar:::\n").classes == ("road", "car")


@pytest.mark.parametrize("text", ["name,r,g,b\nroad,1,2,3\n", "id name\n0 road\n", "id;name\n"])
def test_a_line_of_titles_is_no_class(tmp_path: Path, text: str):
    with pytest.raises(InputError, match=r"classes\.txt:1: .* is a line of titles"):
        _classes(tmp_path, text)


@pytest.mark.parametrize(
    "line",
    [
        "background,0",
        "-1 plate",
        "1. car",
        "0-3 car",
        "0|car",
        '"0","car"',
        "0 = car",
        "{'car': 0}",
    ],
)
def test_a_number_in_the_wrong_place_is_no_part_of_a_name(tmp_path: Path, line: str):
    with pytest.raises(InputError, match=r"classes\.txt:1: a line is "):
        _classes(tmp_path, f"{line}\n")


def test_one_colour_for_two_classes_declares_no_rgb_masks(tmp_path: Path):
    assert _classes(tmp_path, "road 1 2 3\ncar 1 2 3\n").colors == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5", "a line is"),
        ("5 64 0 128", "a line is"),
        ("5 car 64 0", "a line is"),
        ("5 car 64 0 300", "a line is"),
        ("car", "before every class name or before none"),
        ("256 car", "raw id 256"),
        ("0 car", "an earlier line lists raw id 0"),
    ],
)
def test_a_malformed_line_is_refused_with_its_number(tmp_path: Path, line: str, message: str):
    with pytest.raises(InputError, match=rf"classes\.txt:3: .*{message}"):
        _classes(tmp_path, f"# ids\n0 road\n{line}\n")


@pytest.mark.parametrize("text", ["", "# nothing\n", "void\n"])
def test_a_file_that_names_no_class_is_refused(tmp_path: Path, text: str):
    with pytest.raises(InputError, match="names no class"):
        _classes(tmp_path, text)


def test_the_embedded_scenes_have_three_splits_of_different_scenes():
    splits = catalog.load("scenes", size=(48, 64), count=3, val_count=2).splits
    assert {split: len(splits[split]) for split in splits} == {"train": 3, "val": 2, "test": 2}
    images = [splits[split][0][0] for split in splits]
    assert images[0].shape == (48, 64, 3)
    assert not (images[0] == images[1]).all()
    assert not (images[1] == images[2]).all()


def test_the_seed_changes_the_training_scenes_only():
    first, other = (catalog.load("scenes", size=(48, 64), seed=seed).splits for seed in (0, 1))
    assert not (first["train"][0][0] == other["train"][0][0]).all()
    np.testing.assert_array_equal(first["val"][0][0], other["val"][0][0])
    with pytest.raises(InputError, match="data.seed is -1"):
        catalog.load("scenes", seed=-1)


@pytest.mark.skipif(not os.environ.get("SEGJAX_DATA"), reason="needs CamVid in $SEGJAX_DATA")
def test_camvid_as_prepared_for_segnet_has_its_frames():
    splits = catalog.load("camvid").splits
    assert {split: len(splits[split]) for split in splits} == {
        "train": 367,
        "val": 101,
        "test": 233,
    }
