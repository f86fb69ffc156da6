import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segjax import prepare
from segjax.data import catalog, png
from segjax.errors import InputError
from tests import tiny


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))


def _folder(root: Path) -> catalog.Dataset:
    """Two training examples of road, car and void, one for validation."""
    for split, name, value in (("train", "a", 0), ("train", "b", 7), ("val", "c", 7)):
        label = np.full((20, 30), value, np.uint8)
        label[0] = 255
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20)).save(root / "images" / split / f"{name}.png")
        (root / "labels" / split / f"{name}.png").write_bytes(png.encode_indices(label, []))
    (root / "classes.txt").write_text("0 road\n7 car\n9 sign\n")
    return catalog.load("folder", root=str(root))


def test_show_writes_a_sheet_and_the_statistics(tmp_path: Path):
    lines = []
    prepare.show(_folder(tmp_path / "toy"), "train", tmp_path / "out", log=lines.append)
    sheet = cv2.imread(str(tmp_path / "out" / "toy-train-sheet.png"))
    assert sheet is not None
    facts = json.loads((tmp_path / "out" / "toy-train.json").read_text())
    assert facts["raw_ids"] == {"0": 570, "7": 570, "255": 60}
    assert (facts["minimum"], facts["maximum"], facts["num_classes"]) == (0, 255, 3)
    assert (facts["examples"], facts["sampled"]) == (2, 2)
    assert facts["sizes"] == [{"height": 20, "width": 30, "examples": 2}]
    assert facts["void"] == {"pixels": 60, "share": 0.05}
    expected = {
        "name": "car", "pixels": 570, "share": 0.5, "images": 1, "median_frequency_weight": 1.0,
    }  # fmt: skip
    assert facts["classes"][1] == expected
    assert facts["classes"][2]["median_frequency_weight"] == 0
    text = "\n".join(lines)
    assert "3 raw ids from 0 to 255: 0, 7, 255." in text
    assert "absent" in text.split("sign")[1].split("\n")[0]


def test_the_embedded_scenes_can_be_shown(tmp_path: Path):
    dataset = catalog.load("scenes", size=(48, 64), count=3)
    prepare.show(dataset, "train", tmp_path, log=lambda line: None)
    name = dataset.spec.name
    assert json.loads((tmp_path / f"{name}-train.json").read_text())["sampled"] == 3


def test_show_refuses_a_split_that_is_not_there(tmp_path: Path):
    with pytest.raises(InputError, match="No split 'tset'; present are train, val"):
        prepare.show(_folder(tmp_path / "toy"), "tset", tmp_path / "out")


def test_check_is_content_with_a_good_data_set(tmp_path: Path):
    lines = []
    prepare.check(_folder(tmp_path / "toy"), log=lines.append)
    assert lines == [
        "toy train: 2 examples read, no problem.",
        "toy val: 1 examples read, no problem.",
    ]


def test_check_reads_again_what_a_scan_has_found_good(tmp_path: Path):
    dataset = _folder(tmp_path / "toy")
    prepare.check(dataset, log=lambda line: None)
    path = tmp_path / "toy" / "labels" / "val" / "c.png"
    data, status = bytearray(path.read_bytes()), path.stat()
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputError, match="1 problems in val"):
        prepare.check(dataset, log=lambda line: None)


def test_check_lists_the_problems_of_all_splits_and_fails(tmp_path: Path):
    dataset, lines = _folder(tmp_path / "toy"), []
    labels = tmp_path / "toy" / "labels"
    for name in "ab":
        (labels / "train" / f"{name}.png").write_bytes(
            png.encode_indices(np.full((20, 30), 3, np.uint8), [])
        )
    (labels / "val" / "d.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"^toy: 3 problems in train, val\.$"):
        prepare.check(dataset, log=lines.append)
    assert ["a.png" in lines[0], "b.png" in lines[1]] == [True, True]
    assert "1 masks without an image (d)" in lines[2]


def test_check_lists_every_bad_mask_where_the_classes_are_guessed_from_the_masks(tmp_path: Path):
    root, lines = tmp_path / "toy", []
    _folder(root)
    (root / "classes.txt").unlink()
    (root / "labels" / "train" / "b.png").write_bytes(
        png.encode_indices(np.ones((20, 30), np.uint8), [])
    )
    Image.new("RGB", (30, 20)).save(root / "labels" / "train" / "a.png")
    (root / "labels" / "val" / "c.png").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"2 problems in train, val\."):
        prepare.check(catalog.load("folder", root=str(root)), log=lines.append)
    assert ["a.png: an RGB mask" in lines[0], "c.png: not a PNG" in lines[1]] == [True, True]


@pytest.mark.parametrize("words", [[], ["shwo"], ["show", "check"]])
def test_an_unknown_action_names_the_known_ones(words: list[str]):
    with pytest.raises(InputError, match="one of show, check"):
        prepare.main(["prepare.py", *words])


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [(["show"], 0, "Written: "), (["check"], 0, "no problem"), ([], 1, "one of show, check")],
)
def test_the_command_shows_and_checks_the_data_set_of_a_recipe(
    tmp_path: Path, words: list[str], status: int, said: str
):
    flags = ["--config=configs/fcn8s.py:smoke", f"--output={tmp_path}"]
    ended = subprocess.run(
        [sys.executable, "-m", "segjax.prepare", *words, *flags],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == status, ended.stderr
    assert said in ended.stdout + ended.stderr
    assert (tmp_path / "scenes-train-sheet.png").exists() == (words == ["show"])


def test_a_data_set_of_regions_is_shown_and_checked_too(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        masks = {k: rng.integers(1, 300, (20, 30)).astype(np.uint16) for k in range(1, 3)}
        tiny.write_regions(tmp_path / "set", name, masks)
    dataset = catalog.load_any("bsds500", root=str(tmp_path / "set"))
    lines = []
    prepare.show_regions(dataset, "val", tmp_path / "out", log=lines.append)
    facts = json.loads((tmp_path / "out" / "bsds500-val.json").read_text())
    assert facts["examples"] == 2
    assert facts["annotators"] == {"fewest": 2, "most": 2}
    assert (tmp_path / "out" / "bsds500-val-sheet.png").exists()
    prepare.check_regions(dataset, log=lines.append)
    assert "2 examples read" in lines[-1]
