import json
from pathlib import Path

import cv2
import pytest

from segjax.data import catalog
from segjax.errors import InputError
from segjax.preparation import sheets
from tests.preparation import made


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))


def test_show_writes_a_sheet_and_the_statistics(tmp_path: Path):
    lines = []
    sheets.show(made.folder(tmp_path / "toy"), "train", tmp_path / "out", log=lines.append)
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
    sheets.show(dataset, "train", tmp_path, log=lambda line: None)
    name = dataset.spec.name
    assert json.loads((tmp_path / f"{name}-train.json").read_text())["sampled"] == 3


def test_show_refuses_a_split_that_is_not_there(tmp_path: Path):
    with pytest.raises(InputError, match="No split 'tset'; present are train, val"):
        sheets.show(made.folder(tmp_path / "toy"), "tset", tmp_path / "out")


def test_a_data_set_of_regions_is_shown_with_its_annotators(tmp_path: Path):
    dataset, lines = made.write_regions(tmp_path / "set"), []
    sheets.show_regions(dataset, "val", tmp_path / "out", log=lines.append)
    facts = json.loads((tmp_path / "out" / "bsds500-val.json").read_text())
    assert facts["examples"] == 2
    assert facts["annotators"] == {"fewest": 2, "most": 2}
    assert (tmp_path / "out" / "bsds500-val-sheet.png").exists()


def test_another_sheet_is_not_written_over(tmp_path: Path):
    out = tmp_path / "out"
    for number, show in enumerate((sheets.show, sheets.show_regions)):
        dataset = (made.write_regions, made.folder)[not number](tmp_path / str(number))
        split = ("train", "val")[number]
        show(dataset, split, out, log=lambda line: None)
        written = {path: path.stat().st_mtime_ns for path in out.iterdir()}
        with pytest.raises(InputError, match="and 1 more: there already; .*--overwrite"):
            show(dataset, split, out, log=lambda line: None)
        assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == written
        show(dataset, split, out, overwrite=True, log=lambda line: None)
