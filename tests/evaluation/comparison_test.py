"""Two stored evaluations of the same images, without a network."""

import dataclasses
import json
import pathlib
from typing import Any

import cv2
import numpy as np
import pytest

from segjax import compare, files
from segjax.data import catalog, splits
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.evaluation import comparison, kept_labels
from segjax.metrics import confusion
from tests import programs, tiny

ITEMS = (40, 7, 99, 63)
SCENES = catalog.load("scenes", size=(48, 64))
SOURCE, K = SCENES.splits["val"], SCENES.spec.num_classes


def store(workdir: pathlib.Path, wrong: dict[int, float], **fields: Any) -> pathlib.Path:
    """Writes an evaluation: of each item, a share of the rows gets the class after the true one."""
    config = tiny.config(data__size=(48, 64))
    files.write_text(workdir / "config.json", config.to_json())
    path = workdir / "eval-val.json"
    marginals, names = [], []
    with kept_labels.Writer(path, SCENES.spec) as labels:
        for item, share in wrong.items():
            truth = SOURCE[item][1]
            prediction = np.where(truth == VOID, 0, truth)
            rows = round(share * len(truth))
            prediction[:rows] = (prediction[:rows] + 1) % K
            counts = confusion.count(truth, prediction, K)
            marginals.append(confusion.marginals(np.asarray(counts)[None])[0])
            names.append(SOURCE.name(item))
            labels.add(names[-1], prediction.astype(np.uint8))
    files.write_npz(
        path.with_suffix(".npz"), names=names, marginals=np.array(marginals), index=[*wrong]
    )
    iou = confusion.iou(np.sum(marginals, axis=0))
    protocol = {"split": "val", "views": {"name": "single"}, "crf": {"name": "full"}}
    known = {"step": 12, "data": "abc", "protocol": protocol}
    by_class = {name: float(iou[i]) for i, name in enumerate(SCENES.spec.classes)}
    files.write_text(path, json.dumps(known | {"iou": by_class} | fields))
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A good evaluation, and a worse one with its images in another order."""
    folder = tmp_path_factory.mktemp("pair")
    good = dict.fromkeys(ITEMS, 0.125)
    worse = dict(zip(ITEMS[::-1], (0.25, 0.5, 0.125, 0.375), strict=True))
    return store(folder / "good", good), store(folder / "worse", worse)


def test_the_verb_compares_two_runs_image_by_image(pair, tmp_path):
    done = programs.forked(
        "compare", str(pair[0].parent), str(pair[1].parent), f"--output={tmp_path}"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("A: good, step 12, single, full\nB: worse, step 12, single, full")
    fields = json.loads((tmp_path / "compare.json").read_text())
    stored = [json.loads(path.read_text()) for path in pair]
    assert fields["images"] == 4
    for name in SCENES.spec.classes:
        for side, there in zip("ab", stored, strict=True):
            assert fields["iou"][name][side] == pytest.approx(there["iou"][name], nan_ok=True)
    total = fields["iou"]["mIoU"]
    assert total["low"] <= total["a"] - total["b"] <= total["high"]
    assert total["low"] > 0
    assert [*fields["disagreement"]] == [SOURCE.name(item) for item in (99, 40, 63, 7)]
    with pytest.raises(InputError, match=r"disagreements\.png and 1 more: there already"):
        comparison.run(*pair, "", tmp_path)
    assert json.loads((tmp_path / "compare.json").read_text()) == fields


def test_disagreement_is_the_share_of_labelled_pixels_that_differ(pair):
    maps = [kept_labels.Reader(path, "") for path in pair]
    images = comparison.disagreements(comparison.load(pair[0], ""), SOURCE, maps, K)
    assert {image.index for image in images} == set(ITEMS)
    for image in images:
        a, b = (labels[image.name] for labels in maps)
        counted = SOURCE[image.index][1] != VOID
        assert image.share == np.mean((a != b)[counted])
    shares = [image.share for image in images]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0  # the same rows are wrong in both


def test_the_picture_shows_the_images_that_differ_most(pair, tmp_path, monkeypatch, capsys):
    heights = []
    for count in (1, 2):
        monkeypatch.setattr(comparison, "SHOWN", count)
        comparison.run(*pair, "", tmp_path / str(count))
        picture = cv2.imread(str(tmp_path / str(count) / "disagreements.png"))
        heights.append(picture.shape[0])
    assert heights[0] < heights[1]
    assert "Written: " in capsys.readouterr().out


def test_images_are_paired_by_their_names(pair):
    a, b = (comparison.load(path, "") for path in pair)
    assert a.names == b.names[::-1]
    again = comparison.aligned(a, b)
    assert again.names == a.names
    np.testing.assert_array_equal(again.marginals, b.marginals[::-1])
    np.testing.assert_array_equal(again.index, a.index)


def test_an_evaluation_equals_itself_in_every_class(pair):
    stored = comparison.load(pair[0], "")
    rows, fields = comparison.differences(stored, stored)
    assert rows[0][3:] == ("+0.00", "+0.00 to +0.00")
    assert len(rows) == 1 + K
    assert {v["difference"] for v in fields["iou"].values()} <= {0.0, None}


def test_an_absent_class_has_no_difference(pair):
    stored = comparison.load(pair[0], "")
    marginals = stored.marginals.copy()
    marginals[:, :, 3] = 0
    without = dataclasses.replace(stored, marginals=marginals)
    rows, fields = comparison.differences(without, without)
    name = SCENES.spec.classes[3]
    assert rows[4] == (name, "absent", "absent", "absent", "")
    assert fields["iou"][name] == dict.fromkeys(("a", "b", "difference", "low", "high"))


def test_evaluations_that_cannot_be_compared_are_one_line(pair, tmp_path):
    other = store(tmp_path / "other", dict.fromkeys(ITEMS, 0), data="another")
    fewer = store(tmp_path / "fewer", dict.fromkeys(ITEMS[1:], 0))
    bare = store(tmp_path / "bare", dict.fromkeys(ITEMS, 0))
    (bare.parent / "eval-val-labels.zip").unlink()
    broken = store(tmp_path / "broken", dict.fromkeys(ITEMS, 0))
    files.write_npz(broken.with_suffix(".npz"), confusion=np.zeros((K, K)))
    for second, expected in {
        other: "used different data",
        fewer: "have different images",
        bare: "has no label maps beside it",
        broken: "hold no per-image scores",
        tmp_path / "other" / "eval-test.json": "run segjax.evaluate first",
        tmp_path / "nowhere": "run segjax.evaluate first",
    }.items():
        with pytest.raises(InputError, match=expected):
            comparison.run(pair[0], second, "", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_evaluations_from_before_and_after_the_rule_of_fingerprints_changed_are_compared(
    pair, tmp_path, capsys
):
    scanned = splits.open_split(SCENES, "val").scan
    before = scanned.old_fingerprint(SCENES.spec.name)
    wrong = dict.fromkeys(ITEMS, 0.125)
    old = store(tmp_path / "old", wrong, data=before)
    new = store(tmp_path / "new", wrong, data=scanned.fingerprint)
    comparison.run(old, new, "", tmp_path / "out")
    assert "+0.00" in capsys.readouterr().out
    with pytest.raises(InputError, match="used different data"):
        comparison.run(old, pair[0], "", tmp_path / "other")


def test_two_words_are_needed(pair):
    for words in ([], [str(pair[0])]):
        with pytest.raises(InputError, match="two run folders or files eval-"):
            compare.main(["compare", *words])
    told = programs.line(programs.forked("evaluate", "--compare", "a", "b"))
    assert "--compare: it is a verb now: python -m segjax.compare A B" in told
