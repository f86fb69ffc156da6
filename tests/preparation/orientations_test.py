"""Images that carry an orientation, and the reading that their masks fit."""

import numpy as np
import pytest
from PIL import Image

from segjax.data import catalog, exif, png
from segjax.errors import InputError
from segjax.preparation import checks, orientations
from tests.data import exif_test
from tests.preparation import made

LABEL = np.zeros((20, 30), np.uint8)
LABEL[3:11, 5:24] = 1
LABEL[12:, 1:9] = 2
SQUARE = LABEL[:20, :20]


def pictured(label: np.ndarray) -> np.ndarray:
    """An image whose shades follow a mask, with noise."""
    noise = np.random.default_rng(0).integers(0, 40, (*label.shape, 3))
    return (70 * label[..., None] + noise).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("label", [LABEL, SQUARE], ids=["oblong", "square"])
def test_a_mask_tells_the_reading_that_it_fits(label: np.ndarray, orientation: int):
    upright = exif.upright(pictured(label), orientation)
    turned = exif.upright(label, orientation)
    assert orientations.fit(upright, turned, orientation) == "upright"
    assert orientations.fit(upright, label, orientation) == "stored"
    assert orientations.fit(upright, np.zeros((9, 9), np.uint8), orientation) == "neither"
    flat = np.zeros_like(turned)
    expected = "upright" if orientation >= 5 and label is LABEL else "either"
    assert orientations.fit(upright, flat, orientation) == expected


def write(root, kind: str, name: str, orientation: int, label: np.ndarray) -> None:
    image = Image.fromarray(pictured(LABEL))
    data = exif_test.oriented(image, kind, orientation)
    (root / "images" / "train" / f"{name}.{kind.lower()}").write_bytes(data)
    (root / "labels" / "train" / f"{name}.png").write_bytes(png.encode_indices(label, []))


def test_check_counts_the_images_and_says_which_reading_their_masks_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "toy"
    made.folder(root)
    (root / "classes.txt").write_text("a\nb\nc\n7 d\n".replace("7 d", "d\ne\nf\ng\nh"))
    for name, kind, orientation in (("p", "PNG", 3), ("q", "JPEG", 6), ("r", "TIFF", 2)):
        write(root, kind, name, orientation, exif.upright(LABEL, orientation))
    write(root, "WEBP", "s", 3, LABEL)
    lines: list[str] = []
    checks.check(catalog.load("folder", root=str(root)), log=lines.append)
    (told,) = [line for line in lines if "EXIF" in line]
    assert told.startswith("toy train: 4 images carry an EXIF orientation and are read upright; ")
    assert "of their masks 3 fit the upright image, as they must; 1 fit the stored pixels" in told
    assert "(s.webp). Remove the orientation of those images" in told
    write(root, "PNG", "t", 8, LABEL)
    lines.clear()
    with pytest.raises(InputError, match="toy: 1 problems in train"):
        checks.check(catalog.load("folder", root=str(root)), log=lines.append)
    assert "2 fit the stored pixels (s.webp, t.png)" in lines[1]
    assert "the mask fits the stored pixels, which the EXIF orientation 8 turns" in lines[0]


def test_a_data_set_without_orientations_has_no_such_line(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))
    lines: list[str] = []
    checks.check(made.folder(tmp_path / "toy"), log=lines.append)
    checks.check_regions(made.write_regions(tmp_path / "set"), log=lines.append)
    assert not [line for line in lines if "EXIF" in line]
    assert orientations.report(catalog.load("scenes").splits["val"], "scenes") == ""


def test_one_class_and_void_splits_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))
    made.folder(tmp_path / "toy")
    (tmp_path / "toy" / "classes.txt").write_text("0 road\n7 void\n")
    lines: list[str] = []
    checks.check(catalog.load("folder", root=str(tmp_path / "toy")), log=lines.append)
    assert "toy val: all pixels are void." in lines
    assert "toy: one class, which no network can learn to tell from others." in lines
