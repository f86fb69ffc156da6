import errno
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from segjax.data import png, sources
from segjax.data.spec import VOID, DatasetSpec
from segjax.errors import InputError
from tests.data import exif_test

SPEC = DatasetSpec(
    name="toy",
    classes=("road", "car"),
    palette=((128, 64, 128), (64, 0, 128)),
    table=((0, 0), (1, 1), (255, VOID)),
)


def _image(height: int = 6, width: int = 8) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2] = (200, 20, 20)
    image[height // 2 :] = (20, 20, 200)
    return image


def _encoded(image: np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _pair(root: Path, name: str, label: np.ndarray | None = None, split: str = "train") -> None:
    label = np.zeros((6, 8), np.uint8) if label is None else label
    _write(root / "images" / split / f"{name}.png", _encoded(_image(), "PNG"))
    _write(root / "labels" / split / f"{name}.png", png.encode_indices(label, SPEC.palette))


def _source(root: Path) -> sources.FolderSource:
    return sources.FolderSource(pairs=sources.list_pairs(root, "train"), spec=SPEC)


def test_an_example_is_an_rgb_image_and_its_classes(tmp_path: Path):
    label = np.array([[0, 1, 255] + [0] * 5] * 6, np.uint8)
    _pair(tmp_path, "a", label)
    source = _source(tmp_path)
    image, read = source[0]
    assert len(source) == 1
    np.testing.assert_array_equal(image, _image())
    np.testing.assert_array_equal(read, label)


def test_a_source_survives_pickling(tmp_path: Path):
    _pair(tmp_path, "a")
    copy = pickle.loads(pickle.dumps(_source(tmp_path)))
    np.testing.assert_array_equal(copy[0][0], _image())


def test_names_are_paths_below_the_split_and_positions_are_sorted(tmp_path: Path):
    root = tmp_path / "images" / "labels"  # a root that looks like what is below it
    for name in ("d", "b", "city.x/a_1", "a.b"):
        _pair(root, name)
    source = _source(root)
    assert [source.name(i) for i in range(4)] == ["a.b", "b", "city.x/a_1", "d"]
    assert source.image_path(1) == root / "images" / "train" / "b.png"
    assert source.label_path(1) == root / "labels" / "train" / "b.png"


def test_names_of_files_elsewhere_are_paths_below_their_common_folder(tmp_path: Path):
    pairs = [(tmp_path / "x" / n, tmp_path / "y" / "m.png") for n in ("1.jpg", "z/2.jpg")]
    source = sources.FolderSource(pairs=pairs, spec=SPEC)
    assert [source.name(0), source.name(1)] == ["1", "z/2"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_every_known_kind_of_image_is_read_as_rgb(tmp_path: Path, kind: str):
    image = sources.read_image(_write(tmp_path / "a", _encoded(_image(), kind)))
    assert image.dtype == np.uint8
    assert image.shape == (6, 8, 3)
    assert image[0, 0, 0] > 150 > image[0, 0, 2]
    assert image[-1, -1, 2] > 150 > image[-1, -1, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_images_get_three_channels(tmp_path: Path, kind: str):
    data = _encoded(np.full((6, 8), 90, np.uint8), kind)
    image = sources.read_image(_write(tmp_path / "a", data))
    np.testing.assert_array_equal(image, np.full((6, 8, 3), 90))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_kind_is_read_upright(tmp_path: Path, kind: str, orientation: int):
    image = Image.fromarray(np.kron(_image(), np.ones((8, 8, 1), np.uint8)))
    for column in range(16):  # nothing is symmetric
        image.putpixel((column, 2), (250, 250, 250))
    data = exif_test.oriented(image, kind, orientation)
    shown = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    read = sources.read_image(_write(tmp_path / "a", data))
    np.testing.assert_array_equal(read, shown)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_a_mask_is_one_of_the_upright_image(tmp_path: Path, kind: str, orientation: int):
    image = Image.fromarray(np.kron(_image(), np.ones((8, 8, 1), np.uint8)))
    data = exif_test.oriented(image, kind, orientation)
    shown = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    label = (shown[..., 0] > shown[..., 2]).astype(np.uint8)
    _write(tmp_path / "images" / "train" / f"a.{kind.lower()}", data)
    _write(tmp_path / "labels" / "train" / "a.png", png.encode_indices(label, SPEC.palette))
    read, truth = _source(tmp_path)[0]
    np.testing.assert_array_equal(read[..., 0] > read[..., 2], truth == 1)


def test_a_mask_of_the_stored_pixels_is_told_from_one_of_another_image(tmp_path: Path):
    _pair(tmp_path, "a")
    data = exif_test.oriented(Image.fromarray(_image()), "PNG", 6)
    _write(tmp_path / "images" / "train" / "a.png", data)
    with pytest.raises(InputError, match=r"a\.png is 8 x 6 .* fits the stored pixels.*orient.* 6"):
        _source(tmp_path)[0]
    data = exif_test.oriented(Image.fromarray(_image(5, 8)), "PNG", 6)
    _write(tmp_path / "images" / "train" / "a.png", data)
    with pytest.raises(InputError, match=r"its image a\.png is 8 x 5 \(height x width\)\.$"):
        _source(tmp_path)[0]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused_by_name(tmp_path: Path, progressive: bool, share: float):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = _encoded(noise, "JPEG", progressive=progressive)
    assert sources.decode_image(data, "a.jpg").shape == (64, 64, 3)
    path = _write(tmp_path / "a.jpg", data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"a\.jpg: the JPEG is truncated"):
        sources.read_image(path)


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image():
    thumbnail = _encoded(_image(), "JPEG")
    data = _encoded(_image(), "JPEG", exif=b"Exif\0\0" + thumbnail)
    assert data.count(thumbnail) == 1
    sources.decode_image(data, "a.jpg")
    with pytest.raises(InputError, match="truncated"):
        sources.decode_image(data[:-2], "a.jpg")


def test_data_that_a_camera_appends_to_a_jpeg_are_ignored():
    data = _encoded(_image(), "JPEG") + b"video \xff\xda without an end"
    assert sources.decode_image(data, "a.jpg").shape == (6, 8, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_encoded(_image(), "PNG")[:-20], "truncated"),
        (_encoded(_image(), "BMP")[:-20], "not an image"),
        (b"hello", "not an image"),
        (b"", "not an image"),
        (_encoded(np.full((6, 8), 300, np.uint16), "PNG"), "uint16 samples"),
        (_encoded(np.full((6, 8), 300, np.uint16), "TIFF"), "uint16 samples"),
    ],
)
def test_an_unusable_image_is_refused_with_one_message(data: bytes, message: str, capfd):
    with pytest.raises(InputError, match=f"^a: .*{message}"):
        sources.decode_image(data, "a")
    assert capfd.readouterr().err == ""


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"nowhere\.jpg: No such file"):
        sources.read_image(Path("nowhere.jpg"))


def test_unusable_masks_are_refused_by_name(tmp_path: Path):
    _pair(tmp_path, "a")
    source, path = _source(tmp_path), tmp_path / "labels" / "train" / "a.png"
    for data, message in (
        (png.encode_indices(np.full((6, 8), 7, np.uint8), []), r"undeclared label id 7 \(48 pix"),
        (
            png.encode_indices(np.zeros((6, 9), np.uint8), []),
            r"6 x 9, but its image a\.png is 6 x 8",
        ),
        (_encoded(_image(), "PNG"), "an RGB mask"),
        (_encoded(np.full((6, 8), 300, np.uint16), "PNG"), "16-bit"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"labels/train/a\.png: .*{message}"):
            source[0]


def test_hidden_and_foreign_files_are_ignored(tmp_path: Path):
    _pair(tmp_path, "a")
    for name in (".DS_Store", "._a.png", "readme.txt", ".cache/b.png"):
        _write(tmp_path / "images" / "train" / name, b"")
    assert len(sources.list_pairs(tmp_path, "train")) == 1


def test_linked_folders_are_entered(tmp_path: Path):
    _pair(tmp_path / "real", "city/a")
    for kind in ("images", "labels"):
        folder = tmp_path / "set" / kind / "train"
        folder.mkdir(parents=True)
        (folder / "city").symlink_to(tmp_path / "real" / kind / "train" / "city")
    assert _source(tmp_path / "set").name(0) == "city/a"


def test_unpaired_files_are_counted_in_both_directions_and_three_named(tmp_path: Path):
    _pair(tmp_path, "both")
    for name in "abcd":
        _write(tmp_path / "images" / "train" / f"{name}.jpg", b"")
    _write(tmp_path / "labels" / "train" / "z.png", b"")
    with pytest.raises(InputError) as error:
        sources.list_pairs(tmp_path, "train")
    assert "4 images without a mask (a, b, c, ...)" in str(error.value)
    assert "1 masks without an image (z)" in str(error.value)


def test_two_files_for_one_example_are_refused(tmp_path: Path):
    _pair(tmp_path, "a")
    _write(tmp_path / "images" / "train" / "a.jpg", b"")
    with pytest.raises(InputError, match=r"a\.jpg and a\.png are two files"):
        sources.list_pairs(tmp_path, "train")


def test_missing_and_empty_folders_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="images: no such folder"):
        sources.list_splits(tmp_path)
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match="images/train: holds no image"):
        sources.list_pairs(tmp_path, "train")
    with pytest.raises(InputError, match="images/val: no such folder"):
        sources.list_pairs(tmp_path, "val")
    _write(tmp_path / "images" / "train" / "a.png", b"")
    with pytest.raises(InputError, match="labels/train: no such folder"):
        sources.list_pairs(tmp_path, "train")


def test_names_pair_however_they_spell_their_accents(tmp_path: Path):
    _pair(tmp_path, "caf\u00e9/ma\u00f1ana")
    names = tmp_path / "labels" / "train"
    (names / "cafe\u0301").mkdir()
    (names / "caf\u00e9" / "ma\u00f1ana.png").rename(names / "cafe\u0301" / "man\u0303ana.png")
    source = _source(tmp_path)
    assert source.name(0) == "caf\u00e9/ma\u00f1ana"
    np.testing.assert_array_equal(source[0][0], _image())
    _write(names / "caf\u00e9" / "ma\u00f1ana.png", b"")
    with pytest.raises(InputError, match="are two files for one example"):
        sources.list_pairs(tmp_path, "train")


def test_names_on_disk_keep_their_order(tmp_path: Path):
    for name in ("cafe\u0301", "cafz"):  # composed, the first would be the last
        _pair(tmp_path, name)
    source = _source(tmp_path)
    assert [source.name(0), source.name(1)] == ["cafe\u0301", "cafz"]


def test_a_folder_of_files_that_are_not_read_says_so(tmp_path: Path):
    for name in "ab":
        _pair(tmp_path, name)
        mask = tmp_path / "labels" / "train" / f"{name}.png"
        mask.rename(mask.with_suffix(".gif"))
    with pytest.raises(InputError, match=r"labels/train: holds no image .*2 \.gif.*to \.png"):
        sources.list_pairs(tmp_path, "train")
    _pair(tmp_path, "c")
    with pytest.raises(InputError, match=r"2 images without a mask \(a, b; .*2 \.gif.*to \.png"):
        sources.list_pairs(tmp_path, "train")


def test_a_link_to_a_folder_above_is_entered_once(tmp_path: Path):
    _pair(tmp_path, "a")
    (tmp_path / "images" / "train" / "again").symlink_to(tmp_path / "images")
    assert len(sources.list_pairs(tmp_path, "train")) == 1


def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path: Path, monkeypatch):
    _pair(tmp_path, "a")
    _pair(tmp_path, "closed/b")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="images/train/closed: cannot be listed: Permission den"):
        sources.list_pairs(tmp_path, "train")


def test_a_broken_colour_profile_is_not_talked_of(capfd):
    data = _encoded(_image(), "PNG", icc_profile=b"no profile" * 50)
    np.testing.assert_array_equal(sources.decode_image(data, "a"), _image())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_no_chunk_left_out_changes_a_pixel(mode: str):
    noise = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    image = Image.fromarray(noise).convert(mode)
    clear = {"L": 3, "P": 3, "RGB": (1, 2, 3)}
    options = {"transparency": clear[mode]} if mode in clear else {}
    file = io.BytesIO()
    image.save(file, "PNG", gamma=0.3, dpi=(3, 3), **options)
    expected = np.array(image.convert("RGBA"))[..., :3]
    np.testing.assert_array_equal(sources.decode_image(file.getvalue(), "a"), expected)


def test_a_cached_source_reads_once_and_its_arrays_are_read_only(tmp_path: Path):
    _pair(tmp_path, "a")
    folder = _source(tmp_path)
    source = sources.CachedSource(folder)
    image, _ = source[0]
    folder.image_path(0).unlink()
    assert source[0][0] is image
    assert (len(source), source.name(0)) == (1, "a")
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 0
    with pytest.raises(InputError, match="No such file"):
        pickle.loads(pickle.dumps(source))[0]
