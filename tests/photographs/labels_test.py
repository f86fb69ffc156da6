"""The files of a network's labels."""

import cv2
import numpy as np
import pytest

from segjax.data import png
from segjax.errors import InputError
from segjax.photographs import labels
from segjax.pictures import label_maps
from segjax.prediction import Labelled
from tests import tiny

SIZE = (6, 9)
CLASSES = np.arange(54, dtype=np.uint8).reshape(SIZE) % tiny.K
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


class Images:
    """One image with a folder in its name."""

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return "deep/er.x"


class Net:
    """A predictor that knows its answer.

    Args:
        crf, samples: what its protocol holds.
    """

    spec, step, programs = tiny.SPEC, 12, 1

    def __init__(self, *, crf: bool = False, samples: int = 0):
        self._crf, self._samples = crf, samples

    def protocol(self, sizes):
        assert sizes.tolist() == [[*SIZE]]
        protocol = type("Protocol", (), {"crf": "full" if self._crf else None})
        protocol.views = type("Views", (), {"samples": self._samples})
        return protocol

    def labelled(self, images, sizes):
        before = CLASSES[::-1] if self._crf else None
        uncertainty = CLASSES.astype(np.float32) / 20 if self._samples else None
        yield Labelled(0, IMAGE, CLASSES, before, uncertainty, None)


def write(tmp_path, net: Net, *values: str) -> set[str]:
    """Writes, and returns the names of the files."""
    labels.write(net, Images(), np.array([SIZE]), tmp_path, frozenset(values))
    return {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}


def test_labels_and_overlays_are_the_default(tmp_path, capsys):
    assert write(tmp_path, Net()) == {"deep/er.x.png", "deep/er.x_overlay.png"}
    stored = (tmp_path / "deep" / "er.x.png").read_bytes()
    np.testing.assert_array_equal(png.decode_mask(stored, ""), CLASSES)
    overlay = cv2.imread(str(tmp_path / "deep" / "er.x_overlay.png"), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(overlay, label_maps.overlay(IMAGE, CLASSES, tiny.SPEC))
    told = capsys.readouterr().out
    assert f"Written: labels, overlay of 1 image in {tmp_path} (step 12, programs" in told


def test_a_crf_adds_a_picture_before_and_after_it(tmp_path):
    assert write(tmp_path, Net(crf=True)) == {
        "deep/er.x.png", "deep/er.x_overlay.png", "deep/er.x_crf.png"
    }  # fmt: skip
    picture = cv2.imread(str(tmp_path / "deep" / "er.x_crf.png"), cv2.IMREAD_COLOR_RGB)
    expected = label_maps.before_after(IMAGE, CLASSES[::-1], CLASSES, tiny.SPEC)
    np.testing.assert_array_equal(picture, expected)


def test_samples_add_the_uncertainty(tmp_path):
    names = write(tmp_path, Net(samples=2))
    assert names >= {"deep/er.x_uncertainty.npy", "deep/er.x_uncertainty.png"}
    variance = np.load(tmp_path / "deep" / "er.x_uncertainty.npy")
    np.testing.assert_array_equal(variance, CLASSES.astype(np.float32) / 20)


def test_what_is_asked_for_is_written_and_no_more(tmp_path):
    assert write(tmp_path, Net(crf=True, samples=2), "overlay") == {"deep/er.x_overlay.png"}


def test_nothing_is_labelled_where_a_value_is_refused(tmp_path):
    with pytest.raises(InputError, match="--save=crf needs"):
        write(tmp_path, Net(), "crf")
    assert not list(tmp_path.iterdir())
