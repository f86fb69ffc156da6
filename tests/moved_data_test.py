"""Data that were moved, renamed or linked after a run had read them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from segjax.data import png
from segjax.errors import InputError
from tests import programs, tiny


def folder(root) -> None:
    """Six training images and four for validation, of three classes, one name with an accent."""
    rng = np.random.default_rng(0)
    for split, names in (("train", "abcdef"), ("val", "ghi\u00e9")):
        for name in names:
            label = rng.integers(0, 3, (6, 8)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            for kind in ("images", "labels"):
                (root / kind / split / "city").mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(np.stack([90 * label] * 3, -1))
            image.save(root / "images" / split / "city" / f"{name}.png")
            path = root / "labels" / split / "city" / f"{name}.png"
            path.write_bytes(png.encode_indices(label, []))


def config(root, steps: int):
    often = {"every_steps__eval": 2, "every_steps__checkpoint": 2}
    made = programs.config(total_steps=steps, optim__schedule="constant", **often)
    made.data = {"name": "folder", "root": str(root)}
    return made


def test_a_run_goes_on_with_data_that_were_moved_renamed_and_linked(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))
    first, run = tmp_path / "streets", tmp_path / "run"
    folder(first)
    programs.train_plainly(config(first, 6), tmp_path / "whole")
    programs.train_plainly(config(first, 2), run)
    renamed = tmp_path / "elsewhere" / "roads"
    renamed.parent.mkdir()
    shutil.move(first, renamed)
    programs.train_plainly(config(renamed, 4), run)
    linked = tmp_path / "link"
    linked.symlink_to(renamed)
    monkeypatch.chdir(tmp_path)
    programs.train_plainly(config("link", 6), run)
    whole, parts = (programs.final(one) for one in (tmp_path / "whole", run))
    assert parts["step"] == 6
    tiny.assert_same_bits(parts, whole)


def test_every_verb_that_reads_a_run_finds_its_moved_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))
    first, run = tmp_path / "streets", tmp_path / "run"
    folder(first)
    programs.train_plainly(config(first, 2), run)
    renamed = tmp_path / "elsewhere" / "roads"
    renamed.parent.mkdir()
    shutil.move(first, renamed)
    place = f"--data_root={renamed}"
    environment = {"SEGJAX_CACHE": str(tmp_path / "cache")}
    assert "streets: no such folder (--config.data.root=DIR, or --data_root=DIR" in programs.line(
        programs.forked("evaluate", f"--workdir={run}", **environment)
    )
    scores = json.loads((run / "eval-val.json").read_text())
    done = programs.forked("evaluate", f"--workdir={run}", place, **environment)
    assert done.returncode == 0, done.stderr
    again = json.loads((run / "eval-val.json").read_text())
    assert (again["iou"], again["data"]) == (scores["iou"], scores["data"])
    both = (str(run), str(run), f"--output={tmp_path / 'out'}")
    assert "--data_root=DIR" in programs.line(programs.forked("compare", *both, **environment))
    done = programs.forked("compare", *both, place, **environment)
    assert done.returncode == 0, done.stderr
    assert "+0.00" in done.stdout
    recipe = "--config=configs/fcn8s.py:folder,smoke"
    done = programs.forked("prepare", "check", recipe, place, **environment)
    assert done.returncode == 0, done.stderr
    assert "roads val: 4 examples read, no problem." in done.stdout
    shutil.copy(
        renamed / "labels" / "val" / "city" / "g.png", renamed / "labels" / "val" / "city" / "h.png"
    )
    # Another truth has other scores: a comparison tells, as does a training.
    with pytest.raises(InputError, match="trained on other data"):
        programs.train_plainly(config(renamed, 4), run)
