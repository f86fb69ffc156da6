"""The files of a network's labels."""

import dataclasses
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from segjax.data import catalog, png
from segjax.errors import InputError
from segjax.photographs import labels, source
from segjax.pictures import label_maps
from segjax.prediction import Labelled
from segjax.preparation import checks
from tests import tiny
from tests.data import exif_test

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

    @property
    def protocol(self):
        protocol = type("Protocol", (), {"crf": "full" if self._crf else None})
        protocol.views = type("Views", (), {"samples": self._samples, "tile": (0, 0)})
        protocol.bucket = 1
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
    assert f"Written: labels, overlay of 1 image in {tmp_path} (step 12, each at" in told


@pytest.mark.parametrize(
    ("bucket", "tile", "told"),
    [(1, (0, 0), "at its exact size"), (64, (0, 0), "multiples of 64"), (1, (9, 9), "in windows")],
)
def test_it_is_said_what_happens_to_the_size_of_an_image(bucket, tile, told, tmp_path, capsys):
    net = Net()
    protocol = net.protocol
    protocol.bucket, protocol.views.tile = bucket, tile
    net_with = type("With", (Net,), {"protocol": protocol})()
    write(tmp_path, net_with)
    assert told in capsys.readouterr().out


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


class Bright:
    """A predictor that gives a class to every shade of grey.

    Args:
        spec: its classes.
        step: shades of a class.
    """

    step, programs = 1, 1

    def __init__(self, spec, shades: int):
        self.spec, self._shades = spec, shades

    protocol = Net().protocol

    def labelled(self, images, sizes):
        for index in range(len(images)):
            image = images[index][0]
            assert image.shape[:2] == tuple(sizes[index])
            label = np.minimum(image[..., 0] // self._shades, self.spec.num_classes - 1)
            yield Labelled(index, image, label, None, None, None)


def photographs(folder, names: dict[str, int]) -> None:
    """Writes a photograph of all shades for each name, with an orientation."""
    shades = np.linspace(0, 255, 24 * 32).reshape(24, 32).astype(np.uint8)
    for name, orientation in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.stack([shades] * 3, -1))
        path.write_bytes(exif_test.oriented(image, "PNG", orientation))


LAYOUTS = {
    "folder": ("images/train", "labels/train", "a/{}.png", "a/{}.png"),
    "ade20k": ("images/training", "annotations/training", "{}.png", "{}.png"),
    "cityscapes": (
        "leftImg8bit/train", "gtFine/train", "ulm/{}_leftImg8bit.png",
        "ulm/{}_gtFine_labelIds.png",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_ids_are_masks_of_the_data_set_that_fit_the_photographs(name, tmp_path, monkeypatch):
    """Predicted masks pass the check of their data set, and say what was predicted."""
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))
    root, (images, masks, image_name, mask_name) = tmp_path / "set", LAYOUTS[name]
    photographs(root / images, {image_name.format(i): i for i in (1, 2, 3, 6)})
    (root / "classes.txt").write_text("0 ground\n255 crack\n254 crack\n")
    dataset = catalog.load(name, root=str(root))
    net = Bright(dataset.spec, -(-256 // dataset.spec.num_classes))
    found, sizes, left_out = source.find(root / images, tmp_path / "out").examined()
    assert not len(left_out)
    labels.write(net, found, sizes, tmp_path / "out", frozenset(["ids"]))
    (root / masks).parent.mkdir(exist_ok=True, parents=True)
    shutil.move(tmp_path / "out", root / masks)
    for i in (1, 2, 3, 6):
        path = root / masks / image_name.format(i)
        path.rename(root / masks / mask_name.format(i))
    lines = []
    checks.check(dataset, log=lines.append)
    assert "train: 4 examples read, no problem." in lines[0]
    assert "3 images carry an EXIF orientation" in lines[1]
    assert "fit the stored pixels" not in lines[1]
    split = dataset.splits["train"]
    for index in range(4):
        image, label = split[index]
        expected = np.minimum(image[..., 0] // net._shades, dataset.spec.num_classes - 1)
        np.testing.assert_array_equal(label, expected)
    if name == "folder":  # of a class's ids the first
        raw = png.decode_mask((root / masks / "a" / "1.png").read_bytes(), "")
        assert set(np.unique(raw)) == {0, 255}


def test_ids_need_a_table_of_them(tmp_path):
    net = Net()
    net.spec = dataclasses.replace(tiny.SPEC, table=((0, 0), (1, 1)))
    with pytest.raises(InputError, match="--save=ids: tiny has no id for c, d, e; --save=labels"):
        write(tmp_path, net, "ids")


def test_no_result_is_written_over(tmp_path):
    write(tmp_path, Net(), "overlay")
    with pytest.raises(InputError, match=r"deep/er\.x_overlay\.png: there already"):
        write(tmp_path, Net())
    assert not (tmp_path / "deep" / "er.x.png").exists()
    labels.write(Net(), Images(), np.array([SIZE]), tmp_path, overwrite=True)
    with pytest.raises(InputError, match="is read by this command"):
        labels.write(
            Net(), Images(), np.array([SIZE]), tmp_path, overwrite=True,
            inputs=[tmp_path / "deep" / "er.x.png"],
        )  # fmt: skip
