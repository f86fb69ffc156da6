"""Splits of a data set, opened and checked."""

import cv2
import numpy as np
import pytest

from segjax.data import catalog, sources
from segjax.data.splits import check_trainable, open_split
from segjax.errors import InputError


@pytest.fixture
def root(tmp_path):
    """Two images of 20 x 30 and 10 x 40."""
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").mkdir(parents=True)
    for name, size in (("a", (20, 30)), ("b", (10, 40))):
        label = np.indices(size).sum(0).astype(np.uint8) % 3
        cv2.imwrite(str(tmp_path / "images" / "train" / f"{name}.png"), np.stack([label] * 3, -1))
        cv2.imwrite(str(tmp_path / "labels" / "train" / f"{name}.png"), label)
    return tmp_path


def test_a_split_has_its_source_its_scan_and_a_canvas_that_holds_every_image(root):
    dataset = catalog.load(name="folder", root=str(root))
    split = open_split(dataset, "train")
    assert split.name == "train"
    assert len(split.source) == 2
    assert split.scan.sizes.tolist() == [[20, 30], [10, 40]]
    assert split.canvas == (20, 40)
    assert isinstance(split.canvas[0], int)


def test_decoded_examples_are_kept_only_where_they_shall_be(root):
    dataset = catalog.load(name="folder", root=str(root))
    plain, cached = (open_split(dataset, "train", cache=keep) for keep in (False, True))
    assert isinstance(cached.source, sources.CachedSource)
    assert not isinstance(plain.source, sources.CachedSource)
    for a, b in zip(plain.source[1], cached.source[1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert plain.scan.fingerprint == cached.scan.fingerprint


def test_a_split_that_is_not_there_is_named_with_the_near_miss(root):
    dataset = catalog.load(name="folder", root=str(root))
    with pytest.raises(InputError, match='trian.*Did you mean "train"'):
        open_split(dataset, "trian")
    with pytest.raises(InputError, match="^config.train_split: No split 'trian'"):
        open_split(dataset, "trian", named_by="config.train_split")


def test_files_that_do_not_fit_are_said(root):
    cv2.imwrite(str(root / "labels" / "train" / "b.png"), np.zeros((9, 9), np.uint8))
    dataset = catalog.load(name="folder", root=str(root))
    with pytest.raises(InputError, match="b.png"):
        open_split(dataset, "train")


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_file_that_changes_after_the_scan_is_refused(root, kind):
    split = open_split(catalog.load(name="folder", root=str(root)), "train")
    before = split.source[0]
    path = root / kind / "train" / "a.png"
    content = path.read_bytes()
    path.write_bytes((root / kind / "train" / "b.png").read_bytes())
    with pytest.raises(InputError, match=f"{kind}/train/a.png: changed since the data were check"):
        split.source[0]
    path.write_bytes(content)
    for read, then in zip(split.source[0], before, strict=True):
        np.testing.assert_array_equal(read, then)


def test_a_training_needs_two_classes_and_pixels_of_them(root, caplog):
    def opened(classes: str):
        (root / "classes.txt").write_text(classes)
        return open_split(catalog.load(name="folder", root=str(root)), "train")

    check_trainable(*[opened("a\nb\nc\n")] * 2)
    one, void = opened("0 a\n1 void\n2 void\n"), opened("0 void\n1 void\n2 void\n3 a\n4 b\n")
    good = opened("0 a\n1 b\n2 b\n3 rare\n")
    with pytest.raises(InputError, match="has one class, 'a': every pixel would get it"):
        check_trainable(one, one)
    for pair in ((void, good), (good, void)):
        with pytest.raises(InputError, match="/train: all pixels are void"):
            check_trainable(*pair)
    check_trainable(good, good)
    assert "/train holds no pixel of rare" in caplog.text
