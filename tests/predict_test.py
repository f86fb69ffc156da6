"""The verb that labels photographs, on folders."""

import cv2
import numpy as np

from segjax.data import png
from tests import programs

SLIC = ("predict", "--config=configs/slic.py", "--config.method.regions=20")


def test_a_folder_is_labelled_but_for_its_bad_files(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "photos" / "out"
    for name, size in (("a.png", (12, 20)), ("b/c.d/e.ppm", (10, 14)), ("tiny.jpg", (2, 3))):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        cv2.imwrite(str(photos / name), noise)
    (photos / "._a.png").write_bytes(b"of a Mac")
    (photos / "bad.png").write_bytes(b"no image")
    before = {path: path.read_bytes() for path in photos.rglob("*.*") if path.is_file()}
    command = (*SLIC, f"--input={photos}", f"--output={out}", "--save=labels")
    done = programs.forked(*command)
    told = programs.line(done)
    assert "2 of 4 photographs have no result; first: " in told
    assert "bad.png: not an image" in told
    assert "\ntiny: regions is 20; " in done.stdout
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.png")} == {
        "a.png", "b/c.d/e.png"
    }  # fmt: skip
    labels = png.decode_regions((out / "b" / "c.d" / "e.png").read_bytes(), "e")
    assert labels.shape == (10, 14)
    assert {path: path.read_bytes() for path in before} == before
    told = programs.line(programs.forked(*command))  # its own results are no photographs
    assert "out/a.png and 1 more: there already; give another --output, or --overwrite" in told


def test_an_input_is_needed(tmp_path):
    assert "--input=PATH is needed" in programs.line(programs.forked(*SLIC, cwd=programs.ROOT))
