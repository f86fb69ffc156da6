import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjax.data import catalog, png
from segjax.errors import InputError
from segjax.preparation import checks
from tests.preparation import made


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))


def test_check_is_content_with_a_good_data_set(tmp_path: Path):
    lines = []
    checks.check(made.folder(tmp_path / "toy"), log=lines.append)
    assert lines == [
        "toy train: 2 examples read, no problem.",
        "toy val: 1 examples read, no problem.",
    ]


def test_check_reads_again_what_a_scan_has_found_good(tmp_path: Path):
    dataset = made.folder(tmp_path / "toy")
    checks.check(dataset, log=lambda line: None)
    path = tmp_path / "toy" / "labels" / "val" / "c.png"
    data, status = bytearray(path.read_bytes()), path.stat()
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(InputError, match="1 problems in val"):
        checks.check(dataset, log=lambda line: None)


def test_check_lists_the_problems_of_all_splits_and_fails(tmp_path: Path):
    dataset, lines = made.folder(tmp_path / "toy"), []
    labels = tmp_path / "toy" / "labels"
    for name in "ab":
        (labels / "train" / f"{name}.png").write_bytes(
            png.encode_indices(np.full((20, 30), 3, np.uint8), [])
        )
    (labels / "val" / "d.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"^toy: 3 problems in train, val\.$"):
        checks.check(dataset, log=lines.append)
    assert ["a.png" in lines[0], "b.png" in lines[1]] == [True, True]
    assert "1 masks without an image (d)" in lines[2]


def test_check_lists_every_bad_mask_where_the_classes_are_guessed_from_the_masks(tmp_path: Path):
    root, lines = tmp_path / "toy", []
    made.folder(root)
    (root / "classes.txt").unlink()
    (root / "labels" / "train" / "b.png").write_bytes(
        png.encode_indices(np.ones((20, 30), np.uint8), [])
    )
    Image.new("RGB", (30, 20)).save(root / "labels" / "train" / "a.png")
    (root / "labels" / "val" / "c.png").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"2 problems in train, val\."):
        checks.check(catalog.load("folder", root=str(root)), log=lines.append)
    assert ["a.png: an RGB mask" in lines[0], "c.png: not a PNG" in lines[1]] == [True, True]


def test_a_data_set_of_regions_is_checked(tmp_path: Path):
    lines = []
    checks.check_regions(made.write_regions(tmp_path / "set"), log=lines.append)
    assert "2 examples read" in lines[-1]
